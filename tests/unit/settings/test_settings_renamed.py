"""The old name of a setting is accepted for one release, with one warning."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.settings.environment import Environment, complaint
from worker.settings import Settings, check_names, load
from worker.settings.renamed import warn_once


@pytest.fixture(autouse=True)
def _unwarned() -> Iterator[None]:
    """No test depends on the warnings of the tests before it."""
    warn_once.cache_clear()
    yield
    warn_once.cache_clear()


def test_the_old_variable_is_accepted_with_one_warning(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """A process loads its settings several times, and warns once."""
    environment.setenv("WORKER_THREADS", "7")

    assert [load(Settings).connections, load(Settings).connections] == [7, 7]

    check_names()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "WORKER_THREADS" in record.message
    assert "WORKER_CONNECTIONS" in record.message


def test_the_warning_is_one_line_on_standard_error(environment: Environment) -> None:
    """A process reads its settings before it configures the log; standard output belongs to the application."""
    environment.setenv("WORKER_THREADS", "7")
    script = "from worker.settings import Settings, load; load(Settings)"

    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert process.stdout == ""
    [line] = process.stderr.splitlines()
    assert "WORKER_CONNECTIONS" in line


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_the_old_file_is_accepted_too(
    directory: Path, caplog: pytest.LogCaptureFixture, case: Callable[[str], str]
) -> None:
    """Files in WORKER_SECRETS_DIR have the names of the variables, in either case."""
    (directory / case("WORKER_THREADS")).write_text("7\n")

    assert load(Settings).connections == 7
    assert len(caplog.records) == 1


def test_both_names_are_an_error(environment: Environment, directory: Path) -> None:
    """Also if they agree, and if one stands in a file: the operator removes the old one."""
    environment.setenv("WORKER_CONNECTIONS", "7")
    (directory / "WORKER_THREADS").write_text("7\n")

    sentence = complaint()

    assert "WORKER_CONNECTIONS" in sentence
    assert "WORKER_THREADS" in sentence


def test_without_the_old_name_nothing_is_logged(environment: Environment, caplog: pytest.LogCaptureFixture) -> None:
    environment.setenv("WORKER_CONNECTIONS", "7")

    assert load(Settings).connections == 7
    assert not caplog.records
