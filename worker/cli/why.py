"""The command ``why``: one account in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from worker.cli.output import as_json, print_json, print_line, print_table
from worker.cli.services import views
from worker.domain.account import account_id
from worker.domain.explanation import Explanation

_EVENTS = 4  # so that all fits 24 rows


@click.command()
@click.argument("email")
@as_json
def why(email: str, *, json_output: bool) -> None:
    """Explain an account: what happened, what it means, who can help, and what happens next."""
    with views() as opened:
        found = opened.explainer.explain(email)
        history = opened.events.latest(account_id(email), limit=_EVENTS)
    if json_output:
        print_json(_described(found, history))
        return
    print_line(found.state)
    for label, sentences in _sections(found).items():
        if sentences:
            print_line(" ".join(sentences), label=label.ljust(10))
    for index, sentence in enumerate(found.you_can):
        print_line(sentence, label=("You can" if index == 0 else "").ljust(10))
    if history:
        click.echo()
        # A code other than ok says the outcome; so a line has room for a correlation id, which Microsoft asks for.
        print_table(
            ("latest, UTC", "code", "correlation id"),
            ((f"{line['at']:%m-%d %H:%M:%S}", line["code"], line["correlation_id"] or "-") for line in history),
        )


COMMANDS: tuple[click.Command, ...] = (why,)


def _sections(found: Explanation) -> Mapping[str, Sequence[str]]:
    return {
        "Before": found.happened,
        "Meaning": [found.meaning] if found.meaning else [],
        "Who helps": [found.who],
        "Next": [found.next],
        "User gets": [found.user_reads] if found.user_reads else [],
    }


def _described(found: Explanation, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "state": found.state,
        "happened": found.happened,
        "meaning": found.meaning,
        "who": found.who,
        "next": found.next,
        "next_at": found.next_at,
        "you_can": found.you_can,
        "user_reads": found.user_reads,
        "history": history,
    }
