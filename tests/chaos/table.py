"""The results, one row per fault. They are printed at the end of the session, and kept in docs/chaos.md."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS, ROUNDS

ROW, NOTE = "chaos row", "chaos note"  # names of recorded properties

_DOCUMENT = Path(__file__).parents[2] / "docs" / "chaos.md"
_BEGIN, _END = "<!-- written by make chaos -->", "<!-- until here -->"
_COLUMNS = ("fault", "times", "refreshes", "reads", "violations")


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one fault."""

    fault: str
    times: int
    refreshes: int
    reads: int
    violations: int

    def recorded(self) -> tuple[object, ...]:
        return astuple(self)


@dataclass(frozen=True, slots=True)
class Table:
    """Everything recorded in one session."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The table in Markdown, with aligned columns."""
        sums = [sum(column) for column in zip(*(astuple(row)[1:] for row in self.rows), strict=True)]
        cells = [_COLUMNS, *(_cells(*astuple(row)) for row in self.rows), _cells("all", *sums)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        ruler = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
        return [*(_line(row, widths) for row in [cells[0], ruler, *cells[1:]]), "", *self.notes]

    def is_complete(self) -> bool:
        """Whether this was the long form with all faults."""
        return bool(ROUNDS) and len(self.rows) == len(FAULTS)

    def write(self) -> None:
        """Replace the generated part of the document."""
        before, _, rest = _DOCUMENT.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        _DOCUMENT.write_text("\n".join([before + _BEGIN, "", *self.lines(), "", _END]) + after)


def gather(reports: Iterable[Iterable[Any]]) -> Table:
    """Build the table from the properties that the tests have recorded."""
    table = Table()
    for report in [report for group in reports for report in group if getattr(report, "when", None) == "call"]:
        for name, value in report.user_properties:
            if name == ROW:
                table.rows.append(Row(*value))
            elif name == NOTE:
                table.notes.append(value)
    return table


def _cells(fault: str, *numbers: int) -> tuple[str, ...]:
    return fault, *(f"{number:,}" for number in numbers)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"
