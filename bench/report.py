"""The figures, one per line, as a table for people and as JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.site import ROOT

DOCUMENT = ROOT / "docs" / "benchmarks.md"
_BEGIN, _END = "<!-- written by make {target} -->", "<!-- until here -->"
_COLUMNS = ("part", "figure", "found", "target", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure. ``met`` is None where there is no target."""

    part: str
    figure: str
    value: float
    unit: str = ""
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """The cells of the table's row."""
        met = {None: "", True: "met", False: "**missed**"}[self.met]
        return self.part, self.figure, f"{_number(self.value)} {self.unit}".strip(), self.target, met

    def without_target(self) -> "Line":
        return replace(self, target="", met=None)


def at_least(target: float, value: float) -> dict[str, Any]:
    """The value, target and result of a line whose value must be at least the target."""
    return {"value": value, "target": f"≥ {_number(target)}", "met": value >= target}


def at_most(target: float, value: float) -> dict[str, Any]:
    """The same for a value that must be at most the target."""
    return {"value": value, "target": f"≤ {_number(target)}", "met": value <= target}


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as a table in Markdown."""
    return aligned([_COLUMNS, *(line.cells() for line in lines)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown with aligned columns. The first row is its head."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    ruler = tuple("-" * width for width in widths)
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (rows[0], ruler, *rows[1:])
    ]


def as_json(lines: Sequence[Line]) -> str:
    return json.dumps([asdict(line) for line in lines])


def write(lines: Sequence[Line], document: Path = DOCUMENT) -> None:
    """Replace the generated part of the document. Raises ValueError if there is none."""
    splice(table(lines), document)


def splice(text: Sequence[str], document: Path, *, target: str = "bench") -> None:
    """Replace the part of the document that this target of the Makefile writes. Raises ValueError without markers."""
    before, after = frame(document, target=target)
    document.write_text("\n".join([before + _BEGIN.format(target=target), "", *text, "", _END]) + after)


def frame(document: Path = DOCUMENT, *, target: str = "bench") -> tuple[str, str]:
    """The text before and after the generated part. Raises ValueError if that is not marked or missing."""
    if not document.exists():
        raise ValueError(f"{document} does not exist")
    marker = _BEGIN.format(target=target)
    before, begin, rest = document.read_text().partition(marker)
    _, end, after = rest.partition(_END)
    for found, missing in ((begin, marker), (end, _END)):
        if not found:
            raise ValueError(f"{document} has no {missing!r}, or it is in the wrong place")
    return before, after


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
