"""Holds one server program and ends it when its owner is gone, however the owner went: by kill -9 too.

Runs as a script under a bare interpreter: it imports the standard library only, never this package.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

GRACE = 10.0
POLL = 0.2
_PR_SET_PDEATHSIG = 1


def stop_tree(pid: int) -> list[int]:
    """The parent first: once it is stopped it cannot fork behind our back."""
    _signal(pid, signal.SIGSTOP)
    return [pid, *(member for child in _children(pid) for member in stop_tree(child))]


def continue_tree(pid: int) -> None:
    for child in _children(pid):
        continue_tree(child)
    _signal(pid, signal.SIGCONT)


def kill_tree(pid: int) -> list[int]:
    family = stop_tree(pid)
    for member in family:
        _signal(member, signal.SIGKILL)
    return family


def exists(pid: int) -> bool:
    """A zombie does not: it holds nothing any more, and in a container its new parent may never bury it."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not (stat.exists() and stat.read_bytes().rpartition(b")")[2].split()[0] == b"Z")
    except OSError:  # gone, or the number is somebody else's by now
        return False


def main(owner: int, argv: list[str]) -> int:
    wake = _wakeups()
    if os.getppid() != owner:
        return 1
    server = subprocess.Popen(argv, stdout=sys.stderr, preexec_fn=_die_with_keeper)
    try:
        print(server.pid, flush=True)
        while server.poll() is None and os.getppid() == owner and not _told_to_end(wake):
            pass
    finally:
        _end(server)
    return server.returncode


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    continue_tree(server.pid)
    server.send_signal(signal.SIGINT)  # Postgres: fast shutdown; Valkey: flush the log and leave
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        kill_tree(server.pid)
        server.wait()


def _die_with_keeper() -> None:
    # For a keeper that is itself killed. The signal is tied to the forking thread: here the only one.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wakeups() -> int:
    """Signals, the server's exit among them, become readable bytes."""
    wake, wakened = os.pipe()
    os.set_blocking(wakened, False)
    signal.set_wakeup_fd(wakened)
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: None)
    return wake


def _told_to_end(wake: int) -> bool:
    readable, _, _ = select.select([wake], [], [], POLL)
    return bool(readable) and bool(set(os.read(wake, 64)) - {signal.SIGCHLD})


def _children(pid: int) -> list[int]:
    return [child for child, parent in _parents() if parent == pid]


def _parents() -> list[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True).stdout
        return [(int(child), int(parent)) for child, parent in map(bytes.split, table.splitlines())]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we were looking
            after_name = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            found.append((int(entry.name), int(after_name[1])))
    return found


def _signal(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
