"""Commands about the circuit breakers of app registrations."""

from typing import Any

import click

from worker import clock
from worker.cli.output import as_json, print_json, print_line, print_table
from worker.cli.reason import with_reason
from worker.cli.services import services
from worker.domain.breaker import Breaker
from worker.domain.codes import hint
from worker.domain.fleet import state_of


@click.group()
def breaker() -> None:
    """Show the circuit breakers of app registrations, or try one again at once."""


@breaker.command("list")
@as_json
def list_(*, json_output: bool) -> None:
    """List the circuit breakers and what they wait for."""
    with services() as opened:
        breakers = opened.breakers.list()
    if json_output:
        print_json([describe(each) for each in breakers])
        return
    now = clock.utcnow()
    print_table(
        ("app registration", "breaker", "problem"),
        ((each.client, state_of(each, now), f"{each.kind} ({each.code})" if each.code else "") for each in breakers),
    )


@breaker.command("try")
@click.argument("name")
@with_reason
@as_json
def try_(name: str, *, reason: str | None, json_output: bool) -> None:
    """Let a worker send one probe for the app registration NAME at once, instead of after the wait."""
    with services(reason=reason) as opened:
        was_open = opened.breakers.try_now(name)
    if json_output:
        print_json({"client": name, "was_open": was_open})
    elif was_open:
        print_line(
            f"{name}: the next sweep sends one probe. If it succeeds, the other accounts follow within a minute."
        )
    else:
        print_line(f"{name}: its breaker is closed, there is nothing to try.")


COMMANDS: tuple[click.Command, ...] = (breaker,)


def describe(breaker: Breaker) -> dict[str, Any]:
    """A breaker for machines."""
    return {
        "client": breaker.client,
        "outcome": breaker.kind,
        "code": breaker.code,
        "hint": breaker.code and hint(breaker.code),
        "failures": breaker.failures,
        "open_until": breaker.open_until,
    }
