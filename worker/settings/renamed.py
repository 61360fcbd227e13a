"""Old names of settings, which are accepted for one release."""

import logging
from functools import cache
from typing import Any

from worker.settings.mistakes import PREFIX

_NEW_NAMES = {"threads": "connections"}


def move_old_names(values: dict[str, Any]) -> dict[str, Any]:
    """The values under their new names. Raises ValueError if a setting has both names."""
    moved = dict(values)
    for old, new in _NEW_NAMES.items():
        if old not in moved:
            continue
        if new in moved:
            msg = f"{_variable(new)} and its old name {_variable(old)} are both set; remove {_variable(old)}"
            raise ValueError(msg)
        warn_once(_variable(old), _variable(new))
        moved[new] = moved.pop(old)
    return moved


@cache
def warn_once(old: str, new: str) -> None:
    """Once in a process and the children that it forks. A worker reads its settings before it configures structlog,
    which would print to standard output; the standard library's logging prints to standard error."""
    logging.getLogger("worker").warning("%s is now %s; the next release does not read the old name", old, new)


def _variable(field: str) -> str:
    return f"{PREFIX}{field}".upper()
