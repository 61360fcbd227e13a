"""``token-worker demo`` or ``up`` as a person starts it in a shell, and the processes and files that it leaves."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.e2e.deployment import BIN, inherited
from tests.waiting import HANG_LIMIT, wait_for


class Foreground:
    """Runs in its own process group, as in a shell, with its own TMPDIR and without a terminal."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self.directory = directory
        own = Path(tempfile.mkdtemp(dir=directory))
        self.temporary, self._output, self._errors = own / "tmp", own / "stdout", own / "stderr"
        self.temporary.mkdir()
        for folder in (own, self.temporary):
            folder.chmod(0o711)
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._command = subprocess.Popen(
                [str(BIN / "token-worker"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=directory,
                env={**inherited(), "TERM": "xterm-256color", "TMPDIR": str(self.temporary), **environment},
                start_new_session=True,
            )

    def has_loaded(self, library: str) -> bool:
        """Whether an import has loaded this shared object."""
        with suppress(OSError):  # it has ended
            return library in Path(f"/proc/{self._command.pid}/maps").read_text()
        return False

    def alive(self) -> bool:
        return self._command.poll() is None

    def output(self) -> str:
        return self.stdout() + self.errors()

    def stdout(self) -> str:
        return self._output.read_text()

    def errors(self) -> str:
        return self._errors.read_text()

    def until_printed(self, words: str) -> None:
        wait_for(lambda: words in self.stdout(), about=f"the words {words!r}", processes=[self])

    def ctrl_c(self) -> None:
        """Send SIGINT to the process group, as a terminal does."""
        os.killpg(self._command.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM to the process that was started, as a supervisor does."""
        self._command.terminate()

    def kill(self) -> None:
        self._command.kill()

    def end(self, seconds: float = HANG_LIMIT) -> int:
        """Wait for the end. Returns the exit status."""
        return self._command.wait(seconds)

    def family(self) -> dict[int, str]:
        """Ids and names of all processes below its directory."""
        return processes_in(self.directory)

    def close(self) -> None:
        self._command.kill()
        self._command.wait()


@contextmanager
def foreground(directory: Path, *arguments: str, **environment: str) -> Iterator[Foreground]:
    """Start ``token-worker ARGUMENTS``, and kill it at the end of the block."""
    started = Foreground(directory, *arguments, **environment)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that a server of another user may enter, unlike pytest's own. Its processes end with the test."""
    with tempfile.TemporaryDirectory(prefix="token-worker-e2e-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        try:
            yield Path(directory)
        finally:
            for pid in processes_in(Path(directory)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes_in(directory: Path) -> dict[int, str]:
    """Ids and names of the processes whose working directory is below the directory, or whose environment names it.

    Both are read, because the servers write their titles over their environment. A zombie has neither.
    """
    return {int(entry.name): _name(entry) for entry in Path("/proc").glob("[0-9]*") if _works_in(entry, directory)}


def _works_in(entry: Path, directory: Path) -> bool:
    with suppress(OSError):  # the process has just ended, or belongs to another user
        if (entry / "cwd").readlink().is_relative_to(directory):
            return True
        return str(directory).encode() in (entry / "environ").read_bytes()
    return False


def _name(entry: Path) -> str:
    with suppress(OSError):
        return (entry / "comm").read_text().strip()
    return ""
