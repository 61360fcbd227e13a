"""Runs one server program and ends it when its owner has ended, even by kill -9.

It is a script for a bare interpreter, so it imports the standard library only, never this package.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

GRACE = 10.0  # seconds from SIGINT to SIGKILL
POLL = 0.2  # seconds between two looks at the owner
_PR_SET_PDEATHSIG = 1


def stop_tree(pid: int) -> list[int]:
    """Stop a process and all below it, and return their ids. The parent is stopped first, so that it forks no more."""
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
    """Whether a process runs. A zombie does not; in a container its new parent may never reap it."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not (stat.exists() and stat.read_bytes().rpartition(b")")[2].split()[0] == b"Z")
    except OSError:  # it has ended, or the id belongs to a process of another user by now
        return False


def main(owner: int, argv: list[str]) -> int:
    wake = _wakeups()
    if os.getppid() != owner:
        return 1
    server = subprocess.Popen(argv, stdout=sys.stderr, preexec_fn=_die_with_keeper)
    try:
        print(server.pid, flush=True)
        while server.poll() is None and os.getppid() == owner and not _is_signalled(wake):
            pass
    finally:
        _end(server)
    return server.returncode


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    continue_tree(server.pid)
    server.send_signal(signal.SIGINT)  # a fast shutdown of Postgres; Valkey flushes its log and exits
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        kill_tree(server.pid)
        server.wait()


def _die_with_keeper() -> None:
    # Ends the server if the keeper is killed. The signal is tied to the forking thread, which is the only one here.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wakeups() -> int:
    """A descriptor from which each signal, SIGCHLD at the server's exit among them, can be read as a byte."""
    wake, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: None)
    return wake


def _is_signalled(wake: int) -> bool:
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
        with contextlib.suppress(OSError):  # the process has just ended
            after_name = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            found.append((int(entry.name), int(after_name[1])))
    return found


def _signal(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
