"""The settings of a long-lived process, which follow the files that they come from."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from worker.settings.environment import secrets_directory
from worker.settings.load import load
from worker.settings.models import Settings

_Signature: TypeAlias = frozenset[tuple[str, int, int]]  # path, inode and time of change of each file


class WatchedSettings:
    """Secrets, keys and certificates change on disk when Kubernetes, Vault or an operator renews them."""

    def __init__(self) -> None:
        """Raises ConfigurationError."""
        self.value = load(Settings)
        self._signature = _signature(self.value)

    def reload(self) -> bool:
        """Load the settings again if one of their files has changed. Returns whether they were loaded.

        Raises ConfigurationError if the new ones cannot be used, once for each change. The value stays then.
        """
        found = _signature(self.value)
        if found == self._signature:
            return False
        self._signature = found
        self.value = load(Settings)
        self._signature = _signature(self.value)  # they may name other files
        return True


def _signature(settings: Settings) -> _Signature:
    return frozenset(_stamps([*_secret_files(), *settings.files]))


def _secret_files() -> Iterator[Path]:
    directory = secrets_directory()
    return directory.iterdir() if directory else iter(())


def _stamps(paths: list[Path]) -> Iterator[tuple[str, int, int]]:
    for path in paths:
        try:
            found = path.stat()
        except OSError:  # it is being replaced
            continue
        yield str(path), found.st_ino, found.st_mtime_ns
