"""The encryption keys may come from a command. Its failures are one sentence, without its output."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.unit.settings.environment import COMPLETE, Environment, complaint
from worker.settings import KeySettings, Settings, load
from worker.vault import generate_key


def _program(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


@pytest.fixture(name="variables")
def _variables(environment: Environment) -> Environment:
    environment.delenv("WORKER_ENCRYPTION_KEYS")
    return environment


def test_the_command_is_run_once_and_without_a_shell(variables: Environment, tmp_path: Path) -> None:
    keys, runs = generate_key("kms"), tmp_path / "runs; echo"
    code = f"open({str(runs)!r}, 'a').write('x'); print({keys!r})"
    variables.setenv("WORKER_ENCRYPTION_KEYS_COMMAND", _program(code))

    assert [key.id for key in load(Settings).keys] == ["kms"]
    assert [key.id for key in load(KeySettings).keys] == ["kms"]
    assert runs.read_text() == "x"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (_program("print('hunter2'); raise SystemExit(3)"), "has failed with exit code 3"),
        (_program("pass"), "has printed nothing"),
        (_program("print('\\xff')"), "must be a command line"),
        ("'hunter2", "must be a command line"),
        ("/nonexistent/hunter2", "cannot be run: No such file or directory"),
        (_program("print('hunter2')"), "WORKER_ENCRYPTION_KEYS"),
    ],
)
def test_a_command_that_gives_no_keys_stops_the_start(variables: Environment, command: str, expected: str) -> None:
    variables.setenv("WORKER_ENCRYPTION_KEYS_COMMAND", command)

    assert expected in complaint()


def test_keys_and_a_command_are_one_too_many(variables: Environment) -> None:
    variables.setenv("WORKER_ENCRYPTION_KEYS", COMPLETE["WORKER_ENCRYPTION_KEYS"])
    variables.setenv("WORKER_ENCRYPTION_KEYS_COMMAND", "true")

    assert "WORKER_ENCRYPTION_KEYS and WORKER_ENCRYPTION_KEYS_COMMAND are both set" in complaint()
