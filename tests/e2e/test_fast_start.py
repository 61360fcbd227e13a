"""Commands import only what they use, completion and help work, and colours can be switched off."""

import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

import worker.cli
from tests.constants import ANN
from tests.e2e.deployment import BIN, Deployment, inherited
from tests.e2e.terminal import COLUMNS, in_terminal
from worker.cli import cli
from worker.cli.commands import all_commands

HEAVY = {"celery", "kombu", "msal", "requests", "pycurl", "rich", "alembic", "stamina"}
MORE = {
    "status": HEAVY | {"structlog"},
    "list": HEAVY | {"structlog", "redis"},
    "show": HEAVY | {"structlog", "redis"},
    "why": HEAVY,
    "token": HEAVY - {"rich"},  # structlog imports it
    "keygen": HEAVY | {"sqlalchemy", "redis", "pydantic"},
    "--version": HEAVY | {"sqlalchemy", "redis", "pydantic", "structlog"},
}


@pytest.mark.parametrize("command", MORE)
def test_a_command_imports_only_what_it_uses(deployment: Deployment, command: str) -> None:
    """The time on a busy machine would prove nothing; the imports are most of it."""
    deployment.add_due_accounts(ANN)
    assert deployment.cli("refresh", ANN).returncode == 0
    arguments = [command, ANN] if command in {"show", "why", "token"} else [command]

    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(BIN / "token-worker"), *arguments],
        env={**inherited(), **deployment.environment},
        capture_output=True,
        text=True,
        check=True,
    )

    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported & MORE[command] == set()


@pytest.mark.parametrize(("shell", "expected"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --")])
def test_a_shell_gets_its_completion(deployment: Deployment, shell: str, expected: str) -> None:
    script = deployment.cli("completion", shell).stdout

    assert expected in script
    assert "_TOKEN_WORKER_COMPLETE" in script


def test_commands_and_options_are_completed(deployment: Deployment) -> None:
    """As the script of bash asks for it."""
    for words, expected in (("token-worker re", "refresh"), ("token-worker list --dom", "--domain")):
        done = deployment.cli(
            COMP_WORDS=words, COMP_CWORD=str(words.count(" ")), _TOKEN_WORKER_COMPLETE="bash_complete"
        )
        assert f"plain,{expected}" in done.stdout.splitlines()


def test_help_has_sections_and_whole_sentences(deployment: Deployment) -> None:
    """No line ends in dots, and none is wider than the terminal."""
    _, output = in_terminal(deployment, "--help")

    assert {"Run:", "Accounts:", "Operate:", "Develop:"} <= set(output.splitlines())
    assert "..." not in output.partition("Run:")[2]
    assert max(map(len, output.splitlines())) <= COLUMNS
    for name, _ in all_commands(cli):
        if " " not in name:
            assert f"  {name} " in output


def test_each_command_is_in_a_section() -> None:
    """A module that declares commands is of no use otherwise."""
    modules = [import_module(f"worker.cli.{found.name}") for found in iter_modules(worker.cli.__path__)]
    declared = {command.name for module in modules for command in getattr(module, "COMMANDS", ())}

    assert declared == {name for name, _ in all_commands(cli) if " " not in name}


def test_each_command_has_a_help_that_fits(deployment: Deployment) -> None:
    for name, _ in all_commands(cli):
        done = deployment.cli(*name.split(), "--help")
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= COLUMNS, name
        assert "--json" in done.stdout or name.split()[0] in {
            "breaker",
            "completion",
            "demo",
            "up",
            "emulator",
            "export",
            "exporter",
        }, name


def test_colours_can_be_switched_off(deployment: Deployment) -> None:
    """https://no-color.org"""
    assert "\x1b[31m" in in_terminal(deployment, "status", styled=True)[1]

    deployment.environment["NO_COLOR"] = "1"

    assert "\x1b[" not in in_terminal(deployment, "status", styled=True)[1]
