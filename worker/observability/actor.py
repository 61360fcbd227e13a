"""The actor of this process."""

import os
import pwd
import socket
import sys
from pathlib import Path

from worker.domain.audit import Actor

_LIMIT = 100  # characters of a name


def current_actor(*, program: str | None = None, reason: str | None = None) -> Actor:
    """The user of the operating system, the machine, and the program unless one is given.

    A user who has become another one with sudo is named as well. Names are as trustworthy as the machine.
    """
    user = _user_name(os.getuid())
    by_sudo = os.environ.get("SUDO_USER")
    return Actor(
        user=_clean(f"{by_sudo} as {user}" if by_sudo and by_sudo != user else user),
        host=_clean(socket.gethostname()),
        program=program or _clean(_program()),
        reason=reason,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in containers
        return f"uid {uid}"


def _program() -> str:
    path = Path(sys.argv[0] if sys.argv else "")
    return (path.parent.name if path.name == "__main__.py" else path.name) or "python"


def _clean(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:_LIMIT]
