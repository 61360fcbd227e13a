"""Commands about accounts."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from worker import clock
from worker.cli.audit import print_acts
from worker.cli.output import as_json, print_fields, print_json, print_line, print_table, printable, remaining
from worker.cli.ranges import FiniteRange
from worker.cli.reason import with_reason
from worker.cli.selection import selects_accounts
from worker.cli.services import configure_logging, services, views
from worker.domain.account import DEFAULT_CLIENT, Account, Grant, account_id, grant_expires_at, normalize_email
from worker.domain.audit import Action
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import as_error, failure_of
from worker.domain.client_type import ClientType
from worker.domain.codes import hint
from worker.domain.errors import AccountError, DatabaseUnavailable
from worker.domain.labels import parse_labels
from worker.domain.selection import Selection

if TYPE_CHECKING:
    from worker.db.selection import Order

_ACTS_SHOWN = 5
_PARTS = {"failure_kind", "failure_code"}  # of ``failure``, for machines


def _renamed(new: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """An option's old name, accepted for a release."""

    def warn(_context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is not None:
            click.echo(
                f"Note: {parameter.opts[0]} is now called {new}; the old name goes with the next release", err=True
            )
        return value

    return warn


@click.command()
@click.argument("email")
@click.option("--client", default=DEFAULT_CLIENT, show_default=True, help="Which app registration to sign in to.")
@click.option("--login-name", help="The user principal name, if the mail servers expect it instead of EMAIL.")
@click.option("--label", "labels", multiple=True, help="A label of the account, such as customer=42; may be repeated.")
@as_json
def connect(email: str, client: str, login_name: str | None, labels: tuple[str, ...], *, json_output: bool) -> None:
    """Sign a mailbox in, with a code entered on any device.

    The app registration must allow public client flows.
    """
    email, parsed = normalize_email(email), parse_labels(labels) if labels else None
    with services() as opened:
        opened.identity.validate(client=client, authority=None, scopes=())
        flow = opened.identity.start_device_flow(client)
        click.echo("\n".join(map(printable, flow.message.splitlines())), err=json_output)
        signed_in = flow.wait(clock.utcnow)
        # Not normalized: it may be a telephone number, which would be refused, and the grant lost with it.
        if signed_in.username and signed_in.username.strip().lower() != email:
            click.echo(f"Note: signed in as {printable(signed_in.username)}, for the mailbox {email}.", err=True)
        granted = signed_in.tokens
        opened.accounts.save(
            [
                Grant(
                    email=email,
                    client=client,
                    refresh_token=signed_in.refresh_token,
                    access_token=granted.access_token,
                    expires_at=granted.expires_at,
                    login_name=login_name,
                    labels=parsed,
                    client_type=ClientType.PUBLIC,
                )
            ],
            action=Action.CONNECTED,
        )
    if json_output:
        print_json({"email": email, "client": client})
    else:
        print_line(f"{email} is connected.")


@click.command("list")
@selects_accounts(everything=True)
@click.option(
    "--expiring", type=FiniteRange(0, 36_500), metavar="DAYS", help="Only accounts whose grant ends within DAYS."
)
@click.option("--dying", type=FiniteRange(0, 36_500), hidden=True, callback=_renamed("--expiring"))
@click.option(
    "--sort",
    "order",
    type=click.Choice(["email", "due", "expires", "since"]),
    default="email",
    show_default=True,
    help="By address, next refresh, end of the access token, or latest trouble first.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N.")
@as_json
def list_(
    selection: Selection,
    expiring: float | None,
    dying: float | None,
    order: "Order",
    limit: int | None,
    *,
    json_output: bool,
) -> None:
    """List accounts, their state and how long their access tokens live.

    A grant ends after 90 days without a refresh, or at a fixed age where that has been seen to happen before: by a
    sign-in frequency policy, or because the redirect URI is registered as SPA. With --json: one object a line.
    """
    days = dying if expiring is None else expiring
    if days is not None:
        selection = replace(selection, expiring_before=clock.utcnow() + timedelta(days=days))
    with views() as opened:
        accounts = opened.accounts.list(selection, order=order, limit=limit)
        if json_output:
            for account in accounts:
                print_json(describe(account))
            return
        print_accounts(accounts)


@click.command()
@click.argument("email")
@as_json
def show(email: str, *, json_output: bool) -> None:
    """Show what is known about an account, and its latest refreshes. Never a token."""
    with views() as opened:
        account = opened.accounts.find(email)
        history = opened.events.latest(account.id)
        acts = opened.audit.acts(account=account.id, limit=_ACTS_SHOWN)
    description = describe(account)
    if json_output:
        print_json({**description, "history": history, "audit": [asdict(act) for act in acts]})
        return
    print_fields({name: value for name, value in description.items() if name not in _PARTS})
    if history:
        click.echo()
        print_table(
            ("at", "by", "outcome", "code", "ms", "correlation id"),
            (
                (
                    f"{line['at']:%Y-%m-%d %H:%M:%S}",
                    line["trigger"],
                    line["outcome"],
                    line["code"],
                    line["latency_ms"],
                    line["correlation_id"] or "-",
                )
                for line in history
            ),
            title="latest refreshes",
        )
    if acts:
        click.echo()
        print_acts(acts, title="what was done by hand")


@click.command()
@click.argument("email")
@click.option("--min-ttl", type=FiniteRange(0, 86_400), metavar="S", help="Refresh if it lives for fewer seconds.")
@with_reason
@as_json
def token(email: str, min_ttl: float | None, *, reason: str | None, json_output: bool) -> None:
    """Print a live access token, as a consumer would get it. It is recorded that you did.

    While Postgres is down the token is printed without a record.
    """
    wanted = None if min_ttl is None else timedelta(seconds=min_ttl)
    configure_logging()
    with views(reason=reason) as shown:
        found = shown.cached_token(email, wanted)
        if found is None:
            with services(reason=reason) as opened:
                found = opened.tokens.get(email, min_ttl=wanted)
        try:
            shown.audit.write(Action.TOKEN_PRINTED, [account_id(email)])
        except DatabaseUnavailable as error:
            click.echo(f"Note: not recorded, because {printable(str(error))}", err=True)
    if json_output:
        print_json(
            {
                "email": found.email,
                "access_token": found.value,
                "expires_at": found.expires_at,
                "version": found.version,
            }
        )
    else:
        click.echo(found.value)


COMMANDS: tuple[click.Command, ...] = (connect, list_, show, token)


def print_accounts(accounts: Iterable[Account]) -> None:
    """A table of accounts."""
    now = clock.utcnow()
    print_table(
        ("mailbox", "state", "token lives", "due in", "problem", "labels"),
        (
            (
                account.email,
                account.status.value,
                remaining(account.expires_at, now),
                "in flight" if account.is_leased(now) else remaining(account.due_at, now).replace("expired", "overdue"),
                account.failure.code if account.failure else "",
                " ".join(account.labels),
            )
            for account in accounts
        ),
    )


def _advice(account: Account) -> str | None:
    """The advice that a consumer gets with its error, also while a worker retries the refresh."""
    now, settled = clock.utcnow(), replace(account, lease_until=None)
    entry = CacheEntry.of(settled, failure=failure_of(settled, now=now, requested=True))
    error = as_error(entry, account.email, now=now)
    return error.advice if isinstance(error, AccountError) else None


def describe(account: Account) -> dict[str, Any]:
    """An account for machines."""
    failure = account.failure
    return {
        "email": account.email,
        "id": str(account.id),
        "status": account.status.value,
        "client": account.client,
        "authority": account.authority,
        "scopes": " ".join(account.scopes) or None,
        "version": account.version,
        "expires_at": account.expires_at,
        "due_at": account.due_at,
        "in_flight_until": account.lease_until,
        "last_refreshed_at": account.last_refreshed_at,
        "refresh_token_issued_at": account.refresh_token_issued_at,
        "grant_expires_at": grant_expires_at(account),
        "grant_dies_at": grant_expires_at(account),  # the old name, for a release
        "failure": failure and f"{failure.kind} ({failure.code})",
        "failure_kind": failure and failure.kind,
        "failure_code": failure and failure.code,
        "hint": failure and hint(failure.code),
        "advice": _advice(account),
        "failures_in_a_row": failure and failure.count,
        "failing_since": failure and failure.since,
        "imap": f"{account.mail.imap_host}:{account.mail.imap_port}",
        "smtp": f"{account.mail.smtp_host}:{account.mail.smtp_port}",
        "login_name": account.mail.login_name,
        "labels": list(account.labels),
    }
