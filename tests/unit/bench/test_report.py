"""Figures in the table and in the document."""

from pathlib import Path

import pytest

from bench.report import Line, at_least, at_most, frame, splice, table, write

MARKED = "# Title\n\n<!-- written by make bench -->\nold\n<!-- until here -->\n\nThe rest.\n"


def line(value: float = 1, unit: str = "ms") -> Line:
    return Line(part="reads", figure="get", value=value, unit=unit)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.12345, "0.123"), (12.345, "12.3"), (99.99, "100"), (100.4, "100"), (1234567.8, "1,234,568"), (-1.234, "-1.23")],
)
def test_number_has_three_digits_or_is_whole(value: float, shown: str) -> None:
    assert line(value).cells() == ("reads", "get", f"{shown} ms", "", "")


def test_figure_without_unit_ends_with_its_number() -> None:
    assert line(2, unit="").cells()[2] == "2"


@pytest.mark.parametrize(
    ("target", "cells"),
    [
        (at_least(0.7, 0.7), ("0.7", "≥ 0.7", "met")),
        (at_least(0.7, 0.69), ("0.69", "≥ 0.7", "**missed**")),
        (at_most(10, 10), ("10", "≤ 10", "met")),
        (at_most(10, 10.1), ("10.1", "≤ 10", "**missed**")),
    ],
)
def test_target_is_met_or_missed(target: dict[str, object], cells: tuple[str, ...]) -> None:
    assert Line(part="", figure="", **target).cells()[2:] == cells  # type: ignore[arg-type]


def test_smoke_run_has_no_targets() -> None:
    missed = Line(part="reads", figure="get", **at_least(5, 1))
    assert missed.without_target().cells() == ("reads", "get", "1", "", "")


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    head, ruler, *rows = table([line(), line(1_000_000)])
    assert {len(row) for row in (head, ruler, *rows)} == {len(head)}
    assert rows[1].startswith("| reads | get    | 1,000,000 ms |")


def test_table_replaces_the_text_between_the_markers(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(MARKED)
    for value in (1, 2):
        write([line(value)], document)
    before, after = frame(document)
    assert (before, after) == ("# Title\n\n", "\n\nThe rest.\n")
    assert "| 2 ms" in document.read_text()
    assert "old" not in document.read_text()
    assert "| 1 ms" not in document.read_text()


@pytest.mark.parametrize(
    "text",
    [
        MARKED.replace("<!-- written by make bench -->", ""),
        MARKED.replace("<!-- until here -->", ""),
        "<!-- until here --> <!-- written by make bench -->",
    ],
)
def test_document_without_its_markers_is_not_changed(tmp_path: Path, text: str) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(text)
    with pytest.raises(ValueError, match=r"benchmarks\.md has no '<!-- "):
        write([line()], document)
    assert document.read_text() == text


def test_each_target_has_its_own_part_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "architecture.md"
    document.write_text(MARKED + "<!-- written by make map -->\nold\n<!-- until here -->\n")
    splice(["new"], document, target="map")
    assert document.read_text() == MARKED + "<!-- written by make map -->\n\nnew\n\n<!-- until here -->\n"


def test_missing_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.md does not exist"):
        write([line()], tmp_path / "nowhere.md")
