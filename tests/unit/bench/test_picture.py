"""The last frame of a live display in a real pseudo-terminal, as SVG."""

import sys
from xml.etree import ElementTree as ET

import pytest

from bench.picture import draw, last_frame, record

LIVE = """
import sys
from rich.console import Console
from rich.live import Live
from rich.text import Text

console = Console()
print(f"before, {console.width} x {console.height}, {sys.stdout.isatty()}")
with Live(console=console, auto_refresh=False, transient=True) as live:
    for number in range(3):
        live.update(Text(f"frame {number}\\nsecond line & more", style="green"), refresh=True)
        if number == 1:
            console.print("an event")
console.print("after")
"""


def test_last_frame_of_a_live_display_is_drawn_with_its_colour() -> None:
    output = record([sys.executable, "-c", LIVE])
    assert output.startswith("before, 80 x 24, True\n")

    frame = last_frame(output)
    svg = draw(frame, title="make demo")

    assert "\x1b[32m" in frame
    drawn = " ".join(ET.fromstring(svg).itertext()).replace("\xa0", " ")
    assert "frame 2" in drawn
    assert "second line & more" in drawn
    assert "make demo" in drawn
    for absent in ("frame 1", "before", "an event", "after", "@font-face", "url(http"):
        assert absent not in drawn + svg


def test_output_without_a_live_display_is_refused() -> None:
    with pytest.raises(ValueError, match="has shown no live display"):
        last_frame(record([sys.executable, "-c", "print('plain')"]))


def test_error_of_the_command_contains_its_output() -> None:
    with pytest.raises(ValueError, match=r"has failed, its output ends with:\nsome reason\n"):
        record([sys.executable, "-c", "import sys; sys.exit('some reason')"])
