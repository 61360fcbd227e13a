"""Labels of accounts: words of the operator, by which commands select."""

import re
from collections.abc import Iterable

from worker.domain.errors import InvalidInput

LABEL_LIMIT = 16  # labels per account
_FORM = re.compile(r"[a-z0-9][a-z0-9._:/@=+-]{0,62}")


def parse_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels in lower case and in order, each once. Raises InvalidInput, which never quotes one."""
    if isinstance(labels, str):  # each letter would become a label
        raise InvalidInput("labels must be a list of words, not one string")
    parsed = sorted({parse_label(label) for label in labels})
    if len(parsed) > LABEL_LIMIT:
        msg = f"more than {LABEL_LIMIT} labels; an account has at most so many"
        raise InvalidInput(msg)
    return tuple(parsed)


def parse_label(label: str) -> str:
    """One label in lower case. Raises InvalidInput, which does not quote it, because it may be a token."""
    normal = label.lower()
    if not label.isascii() or not _FORM.fullmatch(normal):
        raise InvalidInput(
            "a label must be 1 to 63 letters, digits or . _ : / @ = + - and begin with a letter or digit,"
            " such as customer=42"
        )
    return normal
