"""A program that cannot outlive this process, because a keeper runs it, in a session of its own.

Every wait is measured on the kernel's clock, which freezegun does not replace.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from worker.devkit.stack import keeper
from worker.devkit.stack.error import StackError

_TICK = 0.02  # seconds
_INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")  # and no secrets of the worker


def ticks(seconds: float) -> Iterator[None]:
    """Yield at once and then every 20 ms, until so many real seconds are over."""
    end = time.clock_gettime(time.CLOCK_MONOTONIC) + seconds
    while time.clock_gettime(time.CLOCK_MONOTONIC) < end:
        yield
        time.sleep(_TICK)


class Process:
    """Starts in the constructor, appends its output to the log, and holds `lock`, if given, until it has ended."""

    def __init__(
        self,
        argv: list[str],
        *,
        log: Path,
        lock: int | None = None,
        stdin: int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as output:
            self.log_start = output.tell()
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), *argv],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=log.parent,
                env={**_environment(), **(environment or {})},
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C must reach the workers, but not the servers
            )
        self._log = log
        try:
            self.pid = self._read_pid()
        except BaseException:
            self._keeper.terminate()
            self._keeper.wait()
            raise

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None if it is still running."""
        for _ in ticks(seconds):
            if self._keeper.poll() is not None:
                break
        return self._keeper.poll()

    def alive(self) -> bool:
        return self._keeper.poll() is None

    def stop(self) -> None:
        self._keeper.send_signal(signal.SIGTERM)
        if self.wait(keeper.GRACE + 5) is None:
            self.kill()

    def kill(self) -> None:
        """Kill the process and all below it. Returns when all have ended, so that the data can be opened again."""
        if not self.alive():
            return
        family = keeper.kill_tree(self.pid)
        if self.wait(5) is None:
            self._keeper.kill()
            self._keeper.wait()
        for _ in ticks(5):
            if not any(map(keeper.exists, family)):
                return

    def pause(self) -> None:
        if self.alive():
            keeper.stop_tree(self.pid)

    def resume(self) -> None:
        if self.alive():
            keeper.continue_tree(self.pid)

    def output(self) -> str:
        """The log since the start."""
        with self._log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def _read_pid(self) -> int:
        assert self._keeper.stdout is not None
        with self._keeper.stdout as output:
            line = output.readline()
        if not line:
            raise StackError(f"A server could not be launched: {self.output().strip()[-500:]}")
        return int(line)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | {"LC_ALL": "C"}
