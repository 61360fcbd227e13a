"""The figures of the product as a whole, and the table of calls."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import map as figures
from bench.trace import Trace

SOURCE = '''"""A module of nine words, and nobody reads all."""
class Small:
    def __init__(self, store: Store) -> None: ...

class Large:
    def __init__(
        self, *, store: Store, now: Callable[[], datetime], hosts: tuple[str, ...], size: int | None = 1
    ) -> None: ...
'''


@pytest.fixture(name="module")
def _module(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return path


def test_largest_constructor_has_most_keywords_that_are_no_plain_values(module: Path) -> None:
    assert figures.largest_constructor([module]) == (2, "Large")


def test_product_is_measured(module: Path) -> None:
    rows = dict(line.strip("| ").split(" | ") for line in figures.size([module]) if "---" not in line)
    found = {name.strip(): value.strip() for name, value in rows.items()}
    assert (found["modules"], found["lines"]) == ("1", "8")
    assert found["words of comments and docstrings"] == "9"
    assert found["names no actor, sentences per 1,000 words"] == "111.1"
    assert found["begins with a free relative, sentences per 1,000 words"] == "0.0"


def test_calls_are_rows_and_their_types_a_list() -> None:
    lines = figures.ways({"read": Trace(9, 8, 7, 6, ("Lease", "Row")), "refresh": Trace(1, 1, 1, 1, ())})
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["read", "9", "8", "7", "6", "2"]
    assert lines[-2:] == ["* read: `Lease`, `Row`", "* refresh: none"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "does not exist"), ("# No markers\n", "has no '<!-- written by make map -->'")],
)
def test_missing_document_or_marker_is_reported_before_anything_starts(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    document = tmp_path / "architecture.md"
    if text is not None:
        document.write_text(text)

    result = CliRunner().invoke(figures.main, ["--write", str(document)])

    assert result.exit_code == 2
    assert f"{document} {sentence}" in result.output
