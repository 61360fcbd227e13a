"""``python -m bench.picture`` draws the live table of ``token-worker demo`` as docs/demo.svg.

It runs the demo in a pseudo-terminal and draws the last frame. It imports none of the demo's code. The demo must have a
live display of rich on standard output, which fits into the terminal's rows.
"""

import io
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

_DOCUMENT = Path(__file__).parents[1] / "docs" / "demo.svg"
_ROWS, _COLUMNS = 24, 80  # the usual size of a new terminal

_REPAINT = re.compile(r"\r(?:\x1b\[(?:2K|1A))+")  # rich erases a frame like this before it draws the next
_FORMAT = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # no fonts from another host
_READ = 65_536  # bytes
_OVERRIDES = frozenset({"COLUMNS", "LINES", "NO_COLOR"})  # variables that override the terminal's properties in rich


@click.command(help=__doc__)
def main() -> None:
    try:
        frame = last_frame(record([sys.executable, "-m", "worker", "demo"]))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _DOCUMENT.write_text(draw(frame, title="make demo"))
    click.echo(f"{_DOCUMENT} is written")


def record(command: Sequence[str]) -> str:
    """The output of a command in a terminal. Raises ValueError if the command fails."""
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (_ROWS, _COLUMNS))
    inherited = {name: value for name, value in os.environ.items() if name not in _OVERRIDES}
    environment = {**inherited, "TERM": "xterm-256color"}
    with subprocess.Popen(  # noqa: S603 - a command of this repository
        command, env=environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        output = b"".join(_chunks(reader)).decode(errors="replace").replace("\r\n", "\n")
    os.close(reader)
    if process.returncode:
        raise ValueError(f"the command has failed, its output ends with:\n{output[-2000:]}")
    return output


def _chunks(reader: int) -> Iterator[bytes]:
    with suppress(OSError):  # EIO: the last process has closed the terminal
        while chunk := os.read(reader, _READ):
            yield chunk


def last_frame(output: str) -> str:
    """The text that a live display showed last, with its colours. Raises ValueError if there was none."""
    *frames, _after = _REPAINT.split(output)
    if len(frames) < 2:
        raise ValueError("the command has shown no live display, or has shown it once only")
    return frames[-1].strip("\n")


def draw(frame: str, *, title: str) -> str:
    """The frame as SVG, without fonts from another host."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(frame))
    return console.export_svg(title=title, code_format=_FORMAT, unique_id="demo")


if __name__ == "__main__":
    main()
