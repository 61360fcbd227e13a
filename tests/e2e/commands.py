"""``token-worker`` as a process of its own, without its second of imports: forked from one that has made them.

What a command can see is its own: arguments, environment, directory and standard streams; and its end is that of an
interpreter. What an import prints or costs is seen only where a test starts the script itself.
"""

import array
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

_ROOM = 1 << 16  # bytes, for a command's arguments and environment
_STREAMS = 3
_ROOT = Path(__file__).parents[2]


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
        with ExitStack() as files:
            streams = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(_STREAMS)]
            streams[0].write(stdin)
            streams[0].seek(0)
            status = self._ask(json.dumps(order).encode(), [stream.fileno() for stream in streams])
            said, complained = map(_read, streams[1:])
        return subprocess.CompletedProcess(list(arguments), status, said, complained)

    def close(self) -> None:
        """Ends a command that still runs, too."""
        if self._line:
            self._line.close()
            self._line = None
        if self._server:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _ask(self, order: bytes, streams: Sequence[int]) -> int:
        try:
            line = self._line or self._start()
            socket.send_fds(line, [order], streams)
            return int(line.recv(_ROOM))
        except BaseException:
            self.close()  # or the next would be told this one's status
            raise

    def _start(self) -> socket.socket:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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


def _read(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def serve(line: socket.socket) -> None:
    """Returns in the process of a command, as which it then goes on; the others are told its status."""
    while order := _receive(line):
        child = os.fork()
        if child == 0:
            line.close()
            _become(*order)
            return
        for stream in order[1]:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        line.send(b"%d" % os.waitstatus_to_exitcode(status))
    raise SystemExit


def _receive(line: socket.socket) -> tuple[dict[str, Any], Sequence[int]] | None:
    message, streams, _, _ = socket.recv_fds(line, _ROOM, _STREAMS)
    return (json.loads(message), array.array("i", streams)) if message else None


def _become(order: dict[str, Any], streams: Sequence[int]) -> None:
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
