"""Commands that change accounts, one or many: refresh, pause, resume, disconnect, erase, rename."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from worker.cli.accounts import print_accounts
from worker.cli.output import as_json, print_json, print_line
from worker.cli.progress import progress
from worker.cli.reason import with_reason
from worker.cli.selection import selects_accounts
from worker.cli.services import services
from worker.domain.account import account_id, normalize_email
from worker.domain.audit import Action
from worker.domain.pause import Group, groups
from worker.domain.selection import Selection

if TYPE_CHECKING:
    from worker.bootstrap import Services
    from worker.domain.account import AccountId
    from worker.service.accounts.states import Change

T = TypeVar("T")

_PAGE = 500  # accounts a statement: a moment's work for Postgres, and for the locks of the workers
_UNKNOWN_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """An operator's order."""

    selection: Selection
    yes: bool
    dry_run: bool
    reason: str | None
    json_output: bool

    @property
    def only_email(self) -> str | None:
        """The address, if the order is about this account and no other."""
        emails = self.selection.emails or frozenset()
        is_plain = self.selection == Selection(emails=self.selection.emails)
        return next(iter(emails)) if is_plain and len(emails) == 1 and not self.dry_run else None

    @property
    def groups(self) -> Sequence[Group]:
        """The groups that the selection names, if the order is about groups."""
        return groups(self.selection)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """How a command speaks of its change, and its action on the groups that a selection names."""

    ask: str
    done: str
    is_final: bool = False  # cannot be undone, so that even one account needs an answer
    on_groups: Callable[[Sequence[Group]], None] | None = None


def _changes_accounts(command: Callable[[_Order], None]) -> Callable[..., None]:
    """The command takes a selection, and asks before it changes many accounts."""

    @selects_accounts()
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", is_flag=True, help="List the accounts, and change nothing.")
    @with_reason
    @as_json
    def ordered(selection: Selection, *, yes: bool, dry_run: bool, reason: str | None, json_output: bool) -> None:
        command(_Order(selection=selection, yes=yes, dry_run=dry_run, reason=reason, json_output=json_output))

    ordered.__name__, ordered.__doc__ = command.__name__, command.__doc__
    return ordered


@click.command()
@_changes_accounts
def refresh(order: _Order) -> None:
    """Refresh accounts now, regardless of schedule and earlier failures.

    One address is refreshed at once, by this command. Many accounts are made due, and the workers refresh them within
    seconds, as fast as rate and circuit breakers allow.
    """
    with services(reason=order.reason) as opened:
        if order.only_email is None:
            words = _Words(ask="Refresh {}?", done="due; the workers refresh them")
            _change(opened, order, opened.states.refresh_soon, words)
            return
        opened.accounts.find(order.only_email)
        opened.audit.write(Action.REFRESHED, [account_id(order.only_email)])
        found = opened.on_demand.refresh_now(account_id(order.only_email))
    if order.json_output:
        print_json({"email": found.email, "expires_at": found.expires_at, "version": found.version})
    else:
        print_line(f"{found.email}: refreshed, its token lives until {found.expires_at:%Y-%m-%d %H:%M:%S} UTC")


@click.command()
@_changes_accounts
def pause(order: _Order) -> None:
    """Stop refreshing accounts until they are resumed. Their tokens are served while they live.

    With --client, --domain, both or --all, and no other filter, accounts that sign in later are paused as well.
    """
    with services(reason=order.reason) as opened:
        if order.only_email is None:
            words = _Words(ask="Stop refreshing {}?", done="paused", on_groups=opened.pauses.begin)
            _change(opened, order, opened.states.pause, words)
            _say_groups(order, "Accounts of {} that sign in from now on are paused, too.")
        else:
            opened.accounts.pause(order.only_email)
            _say_one(order, "paused")


@click.command()
@_changes_accounts
def resume(order: _Order) -> None:
    """Refresh paused or failing accounts again, from now on. Accounts that are well stay as they are.

    With --client, --domain, both or --all, and no other filter, a pause of the same ends for accounts that sign in
    later.
    """
    with services(reason=order.reason) as opened:
        if order.only_email is None:
            words = _Words(ask="Resume {}?", done="active and due", on_groups=opened.pauses.end)
            _change(opened, order, opened.states.resume, words)
        else:
            opened.accounts.resume(order.only_email)
            _say_one(order, "active")


@click.command()
@_changes_accounts
def disconnect(order: _Order) -> None:
    """Erase the tokens of accounts, here and in the cache."""
    ask = "Erase the tokens of {}? The users will have to sign in again."
    with services(reason=order.reason) as opened:
        if order.only_email is None:
            _change(opened, order, opened.states.disconnect, _Words(ask=ask, done="disconnected", is_final=True))
        else:
            _confirm(order, ask.format(opened.accounts.find(order.only_email).email))
            opened.accounts.disconnect(order.only_email)
            _say_one(order, "disconnected")


@click.command()
@_changes_accounts
def erase(order: _Order) -> None:
    """Delete accounts with all that is known of them: tokens, addresses, events, and their values in Redis."""
    ask = "Erase {} and all that is known of them?"
    with services(reason=order.reason) as opened:
        _change(opened, order, opened.states.erase, _Words(ask=ask, done="erased", is_final=True))


@click.command()
@click.argument("old")
@click.argument("new")
@with_reason
@as_json
def rename(old: str, new: str, *, reason: str | None, json_output: bool) -> None:
    """Move the account of the address OLD to the address NEW, with its tokens and its events.

    For a mailbox whose address was changed at Microsoft: its refresh token stays valid. Consumers must use NEW from
    then on.
    """
    with services(reason=reason) as opened:
        opened.renaming.rename(old, new)
    if json_output:
        print_json({"email": normalize_email(new), "was": normalize_email(old)})
    else:
        print_line(f"{normalize_email(old)} is {normalize_email(new)} now.")


COMMANDS: tuple[click.Command, ...] = (refresh, pause, resume, disconnect, erase, rename)


def _change(opened: "Services", order: _Order, change: "Change", words: _Words) -> None:
    """Change all selected accounts, a page at a time. Exits with 1 if an address is unknown."""
    selected = opened.accounts.select(order.selection)
    unknown = _unknown(opened, order.selection, len(selected))
    if order.dry_run:
        _preview(opened, order, len(selected))
        return
    if len(selected) > 1 or order.groups or (selected and words.is_final):
        _confirm(order, words.ask.format(_counted(len(selected))))
    if order.groups and words.on_groups:
        words.on_groups(order.groups)
        selected = opened.accounts.select(order.selection)  # with those that have signed in meanwhile
    changed = _change_pages(change, selected)
    if order.json_output:
        print_json({"selected": len(selected), "changed": changed, "unknown": unknown})
    else:
        _say_many(changed, len(selected) - changed, words.done)
        for email in unknown[:_UNKNOWN_SHOWN]:
            click.echo(f"no such account: {email}", err=True)
        if len(unknown) > _UNKNOWN_SHOWN:
            click.echo(f"... and {len(unknown) - _UNKNOWN_SHOWN} more", err=True)
    if unknown:
        raise SystemExit(1)


def _change_pages(change: "Change", selected: Sequence["AccountId"]) -> int:
    changed = 0
    with progress(len(selected), "accounts") as advance:
        for start in range(0, len(selected), _PAGE):
            page = selected[start : start + _PAGE]
            changed += len(change(page))
            advance(len(page))
    return changed


def _unknown(opened: "Services", selection: Selection, found: int) -> list[str]:
    """The addresses that were given and are not stored."""
    if selection.emails is None or found == len(selection.emails):
        return []
    stored = {account.email for account in opened.accounts.list(Selection(emails=selection.emails))}
    return sorted(selection.emails - stored)


def _preview(opened: "Services", order: _Order, number: int) -> None:
    accounts = opened.accounts.list(order.selection)
    if order.json_output:
        print_json({"selected": number, "changed": 0, "accounts": [account.email for account in accounts]})
        return
    print_accounts(accounts)
    print_line(f"{_counted(number)}; nothing was changed.")


def _confirm(order: _Order, question: str) -> None:
    """Ask the operator. Raises click.Abort for a no, and UsageError without a terminal."""
    if order.yes:
        return
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("nobody has answered yes; add --yes, which does not ask") from None


def _say_many(changed: int, left: int, done: str) -> None:
    print_line(f"{_counted(changed)} {'is' if changed == 1 else 'are'} {done}.")
    if left:
        print_line(f"{_counted(left)} stayed as {'it was' if left == 1 else 'they were'}.")


def _say_groups(order: _Order, sentence: str) -> None:
    if not order.dry_run and not order.json_output:
        for group in order.groups:
            print_line(sentence.format(group))


def _say_one(order: _Order, state: str) -> None:
    if order.json_output:
        print_json({"selected": 1, "changed": 1, "unknown": []})
    else:
        print_line(f"{order.only_email} is {state}.")


def _counted(number: int) -> str:
    return f"{number:,} account{'' if number == 1 else 's'}"
