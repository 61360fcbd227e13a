"""Draws one line over time as SVG, which needs no plotting library."""

from collections.abc import Sequence
from pathlib import Path

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 960, 320, 70, 40, 30


def write(path: Path, per_minute: Sequence[int], *, title: str, mean: float, top: float) -> None:
    """``top`` is the largest value shown. Larger values are drawn at the top, and the title should say so."""
    wide, high = _WIDTH - _LEFT - 10, _HEIGHT - _BOTTOM - _TOP

    def x(minute: float) -> float:
        return _LEFT + wide * minute / len(per_minute)

    def y(value: float) -> float:
        return _TOP + high * (1 - min(value, top) / top)

    points = " ".join(f"{x(minute):.1f},{y(value):.1f}" for minute, value in enumerate(per_minute))
    hours = range(0, len(per_minute) // 60 + 1, 3)
    text = 'font-family="sans-serif" font-size="12" fill="#444"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{title}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" {text}>{title}</text>',
        *(
            f'<text x="{x(hour * 60):.0f}" y="{_HEIGHT - 15}" text-anchor="middle" {text}>{hour} h</text>'
            for hour in hours
        ),
        *(
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.0f}" text-anchor="end" {text}>{value:,.0f}</text>'
            f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
            for value in (0, mean, top)
        ),
        f'<polyline points="{points}" fill="none" stroke="#1f77b4"/>',
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n")
