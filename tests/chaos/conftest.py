"""One fleet for the whole suite, and its table at the end."""

from collections.abc import Iterator

import pytest

from tests.chaos import table
from tests.chaos.fleet import Fleet, running_fleet
from tests.e2e.foreground import open_directory


@pytest.fixture(scope="session", name="fleet")
def _fleet() -> Iterator[Fleet]:
    with open_directory() as directory, running_fleet(directory) as fleet:
        yield fleet


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the session. After a long run of all tests, write it into the document."""
    found = table.gather(terminalreporter.stats.values())
    if found.rows:
        terminalreporter.section("chaos")
        terminalreporter.write_line("\n".join(found.lines()))
    if found.is_complete():
        found.write()
