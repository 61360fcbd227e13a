"""``token-worker demo`` or ``up`` as a person starts it in a shell, and whatever it leaves behind."""

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
    """Runs in a process group of its own, as a shell arranges it, with a TMPDIR of its own and no terminal."""

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
        """Whether an import has brought this shared object."""
        with suppress(OSError):  # it has ended
            return library in Path(f"/proc/{self._command.pid}/maps").read_text()
        return False

    def alive(self) -> bool:
        return self._command.poll() is None

    def output(self) -> str:
        return self.said() + self.errors()

    def said(self) -> str:
        return self._output.read_text()

    def errors(self) -> str:
        return self._errors.read_text()

    def until_said(self, words: str) -> None:
        wait_for(lambda: words in self.said(), about=f"the words {words!r}", processes=[self])

    def ctrl_c(self) -> None:
        """A terminal tells the whole group."""
        os.killpg(self._command.pid, signal.SIGINT)

    def terminate(self) -> None:
        """A supervisor tells the process it has started."""
        self._command.terminate()

    def kill(self) -> None:
        self._command.kill()

    def end(self, seconds: float = HANG_LIMIT) -> int:
        """The exit status, once it has ended."""
        return self._command.wait(seconds)

    def family(self) -> dict[int, str]:
        """Ids and names of all processes at work in its directory."""
        return at_work_in(self.directory)

    def close(self) -> None:
        self._command.kill()
        self._command.wait()


@contextmanager
def foreground(directory: Path, *arguments: str, **environment: str) -> Iterator[Foreground]:
    """``token-worker ARGUMENTS``, started."""
    started = Foreground(directory, *arguments, **environment)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that a server run as somebody else may enter, as pytest's own is not. At the end nobody works there,
    however the test went."""
    with tempfile.TemporaryDirectory(prefix="token-worker-e2e-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        try:
            yield Path(directory)
        finally:
            for pid in at_work_in(Path(directory)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def at_work_in(directory: Path) -> dict[int, str]:
    """Ids and names of the processes that work below the directory or have it in their environment.

    Both, because the servers write their titles over their environment. A zombie has neither.
    """
    return {int(entry.name): _name(entry) for entry in Path("/proc").glob("[0-9]*") if _works_in(entry, directory)}


def _works_in(entry: Path, directory: Path) -> bool:
    with suppress(OSError):  # it ended while we were looking, or is somebody else's
        if (entry / "cwd").readlink().is_relative_to(directory):
            return True
        return str(directory).encode() in (entry / "environ").read_bytes()
    return False


def _name(entry: Path) -> str:
    with suppress(OSError):
        return (entry / "comm").read_text().strip()
    return ""
