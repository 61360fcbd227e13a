"""An address, a code or a correlation id may hold anything. None of it is markup or a command to the terminal."""

import pytest

from tests.constants import ANN, BOB
from tests.e2e.conftest import _commands, _deployment, _server
from tests.e2e.deployment import Deployment
from tests.e2e.terminal import in_terminal

__all__ = ["_commands", "_deployment", "_server"]  # under the real clock, which is the commands' own

TOKEN = "M.C549_BAY.0.U.-" + "Cq7" * 120  # as long as a refresh token of a personal account
HOSTILE = {
    "[/x]@evil.example": "[/x]@evil.example",
    "[link=https://evil.example]click[/link]@x.y": "[link=https://evil.example]click[/link]@x.y",
    "csi\u009b2jx@evil.example": r"csi\x9b2jx@evil.example",
    "right\u202eleft@evil.example": r"right\u202eleft@evil.example",
    "zero\u200bwidth@evil.example": r"zero\u200bwidth@evil.example",
}


@pytest.mark.parametrize("address", HOSTILE, ids=range(len(HOSTILE)))
def test_an_address_is_shown_as_text(deployment: Deployment, address: str) -> None:
    """In a terminal and in a pipe; a character that does not print is shown as its escape sequence."""
    deployment.add_due_accounts(BOB, ANN)
    deployment.sql("UPDATE mail_credentials SET email = %s WHERE email = %s", address, BOB)  # as earlier versions did

    for command in (["list"], ["show", BOB]):
        status, output = in_terminal(deployment, *command)
        assert (status, HOSTILE[address] in output) == (0, True), output
        assert is_harmless(output)
        piped = deployment.cli(*command)
        assert (piped.returncode, HOSTILE[address] in piped.stdout) == (0, True), piped.stderr
        assert is_harmless(piped.stdout)
    assert ANN in in_terminal(deployment, "list")[1]


def test_a_ledger_line_is_shown_as_text(deployment: Deployment) -> None:
    """The code and the correlation id come from a server; earlier versions stored any header."""
    deployment.add_due_accounts(ANN)
    assert deployment.cli("refresh", ANN).returncode == 0
    title = "\x1b]0;owned\x07\x1b[2J"
    deployment.sql("UPDATE refresh_events SET code = '[/bold]oops', correlation_id = %s", title)
    deployment.sql(
        "UPDATE mail_credentials"
        " SET failure_kind = 'transient', failure_code = %s, failure_count = 1, failing_since = now()",
        f"[red]{title}",
    )

    status, output = in_terminal(deployment, "show", ANN)

    assert status == 0
    assert is_harmless(output)
    assert "[/bold]oops" in output
    assert r"\x1b]0;owned\x07\x1b[2J" in output
    assert r"transient ([red]\x1b]0;owned" in output
    assert is_harmless(deployment.cli("show", ANN).stdout)


def test_an_error_is_shown_as_text(deployment: Deployment) -> None:
    """It repeats the address that was typed or pasted, if that can be mistaken for no other."""
    status, output = in_terminal(deployment, "show", "[/x]@evil.example")
    assert (status, "[/x]@evil.example: no such account" in output) == (1, True), output

    status, output = in_terminal(deployment, "show", "no\u202ebody\u009b2j@evil.example")
    assert (status, "not an e-mail address" in output, "evil" in output) == (2, True, False), output
    assert is_harmless(output)


@pytest.mark.parametrize(
    "arguments",
    [
        ["connect", TOKEN],
        ["show", TOKEN],
        ["show", f"{TOKEN}@"],
        ["token", TOKEN],
        ["refresh", TOKEN],
        ["pause", TOKEN],
        ["resume", TOKEN],
        ["disconnect", "--yes", TOKEN],
        ["disconnect", "--yes", "0.AX-short"],
        ["show", ANN, TOKEN],
        ["list", TOKEN],
        ["list", "--status", TOKEN],
        ["token", ANN, "--min-ttl", TOKEN],
        ["import", TOKEN],
        [TOKEN],
    ],
    ids=lambda arguments: " ".join(arguments).replace(TOKEN, "TOKEN"),
)
def test_a_misplaced_token_is_not_repeated(deployment: Deployment, arguments: list[str]) -> None:
    """Operators copy the errors of commands into tickets and chats."""
    answer = deployment.cli(*arguments)

    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "Error: " in answer.stderr
    assert "Traceback" not in answer.stderr
    assert TOKEN[:20] not in answer.stderr
    assert "0.AX-short" not in answer.stderr


def is_harmless(output: str) -> bool:
    """Whether each character prints, but for the ends of lines and the tabs between cells."""
    return all(character.isprintable() or character in "\n\t" for character in output)
