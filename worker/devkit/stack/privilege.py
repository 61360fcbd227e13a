"""Lets root run a server that does not run as root: in a user namespace, else as the user `nobody`."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from worker.devkit.stack.error import StackError

_NOBODY = 65534
_NAMESPACE = ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"]
_SETPRIV = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig=KILL", "--"]


@dataclass(frozen=True, slots=True)
class Privilege:
    """`prefix` goes in front of the command. A `stranger` is another user, which must own the files first."""

    prefix: tuple[str, ...] = ()
    stranger: bool = False


def reduced(directory: Path) -> Privilege:
    """The way to run a command without root's rights. Raises StackError if there is none for this directory."""
    if os.geteuid() != 0:
        return Privilege()
    if _works([*_NAMESPACE, "true"]):
        return Privilege(tuple(_NAMESPACE))
    if not _works([*_SETPRIV, "true"]):
        raise StackError(
            "Postgres does not run as root and neither unshare nor setpriv works here: "
            "run this as an ordinary user, or set WORKER_DATABASE_URL to a running server."
        )
    if not _works([*_SETPRIV, "test", "-x", str(directory.parent)]):
        raise StackError(
            f"Postgres does not run as root and the user nobody cannot enter {directory.parent}: "
            "choose a directory that every user can enter, or set WORKER_DATABASE_URL to a running server."
        )
    return Privilege(tuple(_SETPRIV), stranger=True)


def hand_over(directory: Path) -> None:
    """Make the user `nobody` the owner of all files."""
    for folder, _, files in os.walk(directory):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)


def _works(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
