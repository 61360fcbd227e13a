"""Runs ``token-worker`` in a terminal of 80 columns and 24 rows, as an operator does."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading

from tests.e2e.deployment import BIN, Deployment, inherited
from tests.waiting import HANG_LIMIT

COLUMNS = 80
_SIZE = struct.pack("HHHH", 24, COLUMNS, 0, 0)  # rows, columns, and no pixels
_REPLACED = re.compile(r"[^\n]*\r\x1b\[K")  # a line of progress
_STYLE = re.compile(r"\x1b\[(0|1|31)m")  # bold and red are the only styles


def in_terminal(deployment: Deployment, *arguments: str, styled: bool = False) -> tuple[int, str]:
    """The exit code and the output, without styles unless ``styled``."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, _SIZE)
    process = subprocess.Popen(
        [str(BIN / "token-worker"), *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=deployment.directory,
        env={**inherited(), **deployment.environment, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    chunks: list[bytes] = []
    reader = threading.Thread(target=_read, args=(ours, chunks))
    reader.start()
    status = process.wait(HANG_LIMIT)
    reader.join()
    os.close(ours)
    output = b"".join(chunks).decode().replace("\r\n", "\n")
    output = _REPLACED.sub("", output)
    return status, output if styled else _STYLE.sub("", output)


def _read(descriptor: int, chunks: list[bytes]) -> None:
    try:
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    except OSError:
        return  # Linux reports the end of a terminal as an error
