"""Runs ``token-worker`` in a process that is forked after the imports, which saves their second.

Each command has its own arguments, environment, directory and standard streams, and ends as an interpreter does. A test
of the output or the time of imports has to start the script itself.
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
_STATUS_SIZE = 16  # bytes


class Commands:
    """Runs one command at a time. Close it at the end."""

    def __init__(self, environment: Mapping[str, str], *, patience: float) -> None:
        self._environment = dict(environment)
        self._patience = patience
        self._server: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def run(
        self, arguments: Sequence[str], *, stdin: str, directory: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises TimeoutError."""
        order = {"arguments": list(arguments), "directory": str(directory), "environment": dict(environment)}
        with _file(json.dumps(order)) as orders, _file(stdin) as given, _file() as output, _file() as errors:
            status = self._run([file.fileno() for file in (orders, given, output, errors)])
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, output.read(), errors.read())

    def close(self) -> None:
        """End the processes, also a command that still runs."""
        if self._line:
            self._line.close()
            self._line = None
        if self._server:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _run(self, files: Sequence[int]) -> int:
        try:
            line = self._line or self._start()
            socket.send_fds(line, [b"."], files)
            return int(line.recv(_STATUS_SIZE))
        except BaseException:
            self.close()  # otherwise the next command would get the status of this one
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
    """Fork a process for each command. Returns in that process; the server sends its status."""
    while files := socket.recv_fds(line, _STATUS_SIZE, 4)[1]:
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


def _become(orders: int, *streams: int) -> None:
    with open(orders) as file:
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

    gc.freeze()  # saves half a second of each command, whose last garbage collection would copy the shared pages
    serve(socket.socket(fileno=int(sys.argv[1])))
    main()
