"""Draws panels of a Grafana dashboard as SVG, with what a Prometheus has answered to their expressions.

It draws the kinds of panels that deploy/grafana/dashboard.json has, roughly as Grafana does.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

#: The name of a series, and its values by time.
Line: TypeAlias = tuple[str, Mapping[float, float]]

_COLUMN, _LEVEL = 50, 26  # pixels of a unit of Grafana's grid
_TITLE, _EDGE, _LEGEND = 24, 8, 16  # pixels
_COLORS = ("#5794f2", "#f2cc0c", "#73bf69", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#c4162a", "#37872d", "#9fa7b3")
_NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#e02f44"}
_DIM = ' fill-opacity="0.5"'  # of a color behind words
_INK, _FAINT, _PAPER, _PANEL = "#d8d9da", "#9fa7b3", "#111217", "#1f2128"


@dataclass(frozen=True, slots=True)
class _Box:
    """The inside of a panel, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Picture:
    """Draws on a time axis that all panels share. ``times`` are those for which Prometheus was asked, at least two."""

    def __init__(self, times: Sequence[float]) -> None:
        self._times = times
        self._begin, self._end = min(times), max(times)

    def draw(
        self, panels: Sequence[Mapping[str, Any]], found: Callable[[Mapping[str, Any]], Sequence[Line]], title: str
    ) -> str:
        """The dashboard as SVG. ``found`` returns the series of a panel."""
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * _LEVEL + 30
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * _COLUMN} {height}" role="img">',
                f"<title>{escape(title)}</title>",
                f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
                _text(_EDGE, 19, title, size=14),
                '<g transform="translate(0 30)">',
                *(part for panel in panels for part in self._panel(panel, found)),
                "</g>",
                "</svg>\n",
            ]
        )

    def _panel(self, panel: Mapping[str, Any], found: Callable[[Mapping[str, Any]], Sequence[Line]]) -> Iterable[str]:
        grid = panel["gridPos"]
        x, y = grid["x"] * _COLUMN + 3, grid["y"] * _LEVEL + 3
        width, height = grid["w"] * _COLUMN - 6, grid["h"] * _LEVEL - 6
        if panel["type"] == "row":
            return [_text(x + 4, y + 15, panel["title"], size=13)]
        box = _Box(x + _EDGE, y + _TITLE, width - 2 * _EDGE, height - _TITLE - _EDGE)
        kinds = {"stat": _stat, "timeseries": self._curves, "state-timeline": self._states, "bargauge": _bars}
        return [
            _rectangle(x, y, width, height, _PANEL),
            *kinds[panel["type"]](panel, box, found(panel)),
            _text(x + _EDGE, y + 16, panel["title"]),
        ]

    def _states(self, panel: Mapping[str, Any], box: _Box, lines: Sequence[Line]) -> Iterable[str]:
        [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
        left, width = box.x + 60, box.width - 60
        for number, (name, values) in enumerate(lines):
            y = box.y + number * 32
            yield _text(box.x, y + 15, name, color=_FAINT)
            for state, times in groupby(self._times, key=values.get):
                if state is not None and math.isfinite(state):
                    first, *_, last = [*times, self._end]
                    x = left + width * self._share(first)
                    color = _NAMED[mapping["options"][f"{state:.0f}"]["color"]]
                    yield _rectangle(x, y, width * (self._share(last) - self._share(first)), 22, color)
        yield from _legend(box, [(state["text"], _NAMED[state["color"]]) for state in mapping["options"].values()])

    def _curves(self, panel: Mapping[str, Any], box: _Box, lines: Sequence[Line]) -> Iterable[str]:
        stacked = "stacking" in panel["fieldConfig"]["defaults"].get("custom", {})
        colors = [(name, _COLORS[number % len(_COLORS)]) for number, (name, _) in enumerate(lines)]
        yield from _legend(box, colors)
        drawn = self._stacked(lines) if stacked else [(values, dict.fromkeys(values, 0.0)) for _, values in lines]
        most = max((value for values, _ in drawn for value in values.values() if math.isfinite(value)), default=0) or 1
        left, wide, high = box.x + 38, box.width - 38, box.height - _LEGEND - 6

        def place(time: float, value: float) -> str:
            return f"{left + wide * self._share(time):.1f},{box.y + high * (1 - value / most):.1f}"

        for share in (0, 0.5, 1):
            y = box.y + high * (1 - share)
            yield f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#34363c"/>'
            yield _text(left - 4, y + 4, _written(most * share, _unit(panel)), anchor="end", color=_FAINT, size=10)
        for (_, color), (values, below) in reversed(list(zip(colors, drawn, strict=True))):
            finite = [(time, value) for time, value in values.items() if math.isfinite(value)]
            points = " ".join(place(*point) for point in finite)
            if stacked:
                back = " ".join(place(time, below[time]) for time, _ in reversed(finite))
                yield f'<polygon points="{points} {back}" fill="{color}" fill-opacity="0.35"/>'
            yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.4"/>'

    def _stacked(self, lines: Sequence[Line]) -> list[tuple[dict[float, float], dict[float, float]]]:
        """The upper and lower edge of each series, on top of those before it."""
        below = dict.fromkeys(self._times, 0.0)
        edges = []
        for _, values in lines:
            above = {time: below[time] + values.get(time, 0.0) for time in self._times}
            edges.append((above, below))
            below = above
        return edges

    def _share(self, time: float) -> float:
        """The place of a time on the axis: 0 is its begin and 1 its end."""
        return (time - self._begin) / (self._end - self._begin)


def _stat(panel: Mapping[str, Any], box: _Box, lines: Sequence[Line]) -> Iterable[str]:
    value = _last(lines[0]) if lines else math.nan
    width, height, color = box.width + 2 * _EDGE, box.height + _TITLE + _EDGE, _threshold(panel, value)
    return [
        _rectangle(box.x - _EDGE, box.y - _TITLE, width, height, color, style=_DIM),
        _text(box.x + box.width / 2, box.y + box.height * 0.7, _written(value, _unit(panel)), size=30, anchor="middle"),
    ]


def _bars(panel: Mapping[str, Any], box: _Box, lines: Sequence[Line]) -> Iterable[str]:
    most = max([*map(_last, lines), 1])
    for number, line in enumerate(lines):
        y, value = box.y + number * 34, _last(line)
        yield _text(box.x, y + 10, line[0], color=_FAINT)
        width = box.width * 0.75 * value / most
        yield _rectangle(box.x, y + 14, width, 12, _threshold(panel, value))
        yield _text(box.x + width + 6, y + 24, _written(value, _unit(panel)))


def _legend(box: _Box, entries: Iterable[tuple[str, str]]) -> Iterable[str]:
    x, y = box.x, box.y + box.height
    for name, color in entries:
        if x + 6 * len(name) > box.x + box.width:
            return
        yield _rectangle(x, y - 5, 10, 3, color)
        yield _text(x + 14, y, name, color=_FAINT, size=10)
        x += 24 + 6.2 * len(name)


def _last(line: Line) -> float:
    return line[1][max(line[1])]


def _unit(panel: Mapping[str, Any]) -> str:
    return str(panel["fieldConfig"]["defaults"].get("unit", "short"))


def _threshold(panel: Mapping[str, Any], value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return _NAMED[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]


def _written(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "no data"
    match unit:
        case "percentunit":
            return f"{value:.2%}"
        case "s":
            return _duration(value)
        case "reqps":
            return f"{value:.2g}/s"
        case _:
            return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms" if 0 < seconds < 1 else f"{seconds:.0f} s"


def _rectangle(x: float, y: float, width: float, height: float, color: str, *, style: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"{style}/>'


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", color: str = _INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-family="sans-serif" font-size="{size}" text-anchor="{anchor}"'
        f' fill="{color}">{escape(text)}</text>'
    )
