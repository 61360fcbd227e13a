"""``token-worker`` as a process of its own, without its second of imports: forked from one that has made them.

What a command can see is its own: arguments, environment, directory and standard streams; and its end is that of an
interpreter. What an import prints or costs is seen only where a test starts the script itself.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parents[2]
_ROOM = 16  # bytes, for a status


class Commands:
    """Runs one command at a time. Close it when done."""

    def __init__(self, environment: Mapping[str, str], *, patience: float) -> None:
        self._environment = dict(environment)
        self._patience = patience
        self._server: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def run(
        self, arguments: Sequence[str], *, stdin: str, directory: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """To its end. Raises TimeoutError."""
        order = {"arguments": list(arguments), "directory": str(directory), "environment": dict(environment)}
        with _file(json.dumps(order)) as told, _file(stdin) as given, _file() as said, _file() as complained:
            status = self._ask([file.fileno() for file in (told, given, said, complained)])
            said.seek(0)
            complained.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, said.read(), complained.read())

    def close(self) -> None:
        """Ends a command that still runs, too."""
        if self._line:
            self._line.close()
            self._line = None
        if self._server:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _ask(self, files: Sequence[int]) -> int:
        try:
            line = self._line or self._start()
            socket.send_fds(line, [b"."], files)
            return int(line.recv(_ROOM))
        except BaseException:
            self.close()  # or the next would be told this one's status
            raise

    def _start(self) -> socket.socket:
        self._line, theirs = socket.socketpair()
        self._line.settimeout(self._patience)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.commands", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=_ROOT,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return self._line


@contextmanager
def _file(content: str = "") -> Iterator[IO[str]]:
    with tempfile.TemporaryFile("w+") as file:
        file.write(content)
        file.seek(0)
        yield file


def serve(line: socket.socket) -> None:
    """Returns in the process of a command, as which it then goes on; the others are told its status."""
    while files := socket.recv_fds(line, _ROOM, 4)[1]:
        child = os.fork()
        if child == 0:
            line.close()
            _become(*files)
            return
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        line.send(b"%d" % os.waitstatus_to_exitcode(status))
    raise SystemExit


def _become(told: int, *streams: int) -> None:
    with open(told) as file:
        order = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["token-worker", *order["arguments"]]


if __name__ == "__main__":
    import worker.bootstrap
    import worker.cli
    import worker.db.schema  # noqa: F401
    from worker.__main__ import main

    gc.freeze()  # or each command would look through it, and thereby copy it, when it ends: half a second
    serve(socket.socket(fileno=int(sys.argv[1])))
    main()
