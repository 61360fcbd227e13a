"""Options that select accounts, the same for each command that takes many."""

import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from worker import clock
from worker.domain.account import Status, normalize_email
from worker.domain.labels import parse_label
from worker.domain.selection import EVERYTHING, Selection

P = ParamSpec("P")
T = TypeVar("T")

_SPAN = re.compile(r"(\d{1,5})\s*(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
_STANDARD_INPUT = "-"


class Instant(click.ParamType[datetime]):
    """An instant, or the time since then."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if span := _SPAN.fullmatch(value.strip()):
            return clock.utcnow() - timedelta(**{_UNITS[span[2]]: int(span[1])})
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            self.fail("write 30min, 2h, 3d, or an instant such as 2026-11-28T03:00Z", param, ctx)
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def selects_accounts(*, everything: bool = False) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """The command takes addresses and filters, and gets ``selection``.

    ``everything``: without addresses and filters it takes all accounts. Otherwise it needs ``--all`` for that.
    """

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @wraps(command)
        def selecting(
            *,
            emails: tuple[str, ...],
            statuses: tuple[str, ...],
            failing: bool,
            codes: tuple[str, ...],
            clients: tuple[str, ...],
            domains: tuple[str, ...],
            labels: tuple[str, ...],
            since: datetime | None,
            every: bool = everything,
            **others: Any,
        ) -> T:
            selection = Selection(
                emails=frozenset(map(normalize_email, _addresses(emails))) if emails else None,
                statuses=_given(map(Status, statuses)),
                clients=_given(clients),
                domains=_given(domain.lower().removeprefix("@") for domain in domains),
                codes=_given(map(_spelled, codes)),
                labels=_given(map(parse_label, labels)),
                failing=failing,
                since=since,
            )
            if selection == EVERYTHING and not every:
                raise click.UsageError("say which accounts: addresses, - for standard input, a filter, or --all")
            if selection != EVERYTHING and every and not everything:
                raise click.UsageError("--all stands alone, without addresses and filters")
            return command(selection=selection, **others)

        options = [
            click.argument("emails", nargs=-1, metavar="[EMAIL]..."),
            click.option(
                "--status",
                "statuses",
                type=click.Choice([status.value for status in Status]),
                multiple=True,
                help="Only accounts in this state.",
            ),
            click.option("--failing", is_flag=True, help="Only accounts whose last refresh failed."),
            click.option("--code", "codes", multiple=True, help="Only accounts that fail with this code."),
            click.option("--client", "clients", multiple=True, help="Only accounts of this app registration."),
            click.option("--domain", "domains", multiple=True, help="Only addresses at this domain."),
            click.option("--label", "labels", multiple=True, help="Only accounts with this label."),
            click.option(
                "--since",
                type=Instant(),
                help="Only accounts that began to fail, or changed their state, since: 2h, 3d, or an instant.",
            ),
        ]
        if not everything:
            options.append(click.option("--all", "every", is_flag=True, help="All accounts."))
        for option in reversed(options):
            selecting = option(selecting)
        return selecting

    return decorate


def _given(values: Iterable[T]) -> frozenset[T] | None:
    return frozenset(values) or None


def _addresses(emails: Iterable[str]) -> Iterable[str]:
    """The addresses, and those on standard input, one a line, in the place of a dash."""
    for email in emails:
        if email == _STANDARD_INPUT:
            yield from filter(None, map(str.strip, sys.stdin))
        else:
            yield email


def _spelled(code: str) -> str:
    """As the ledger spells it: Microsoft's numbers are often quoted without their prefix."""
    number = code.upper().removeprefix("AADSTS")
    return f"AADSTS{number}" if number.isdigit() else code
