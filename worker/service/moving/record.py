"""One account as a file or another product's table has it, before it is checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

RECORD_LIMIT = 1 << 20  # characters; an account has two tokens of some thousand characters each


@dataclass(frozen=True, slots=True)
class Record:
    """``number`` is that of its first line in the file, or of its row. ``text`` is what the file has there.

    ``reason``: why the record cannot be read; then it has no fields. Neither it nor a message quotes ``text``, because
    that may hold a token.
    """

    number: int
    fields: Mapping[str, object] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)
    reason: str = ""
    is_header: bool = False  # of a CSV file
