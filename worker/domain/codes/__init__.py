"""What is known of the codes of Microsoft's answers, as one table. ``docs/error-codes.md`` is written from it."""

from worker.domain.codes.row import CodeRow, Flag, Verdict
from worker.domain.codes.table import BY_ERROR, BY_NUMBER, explain, flagged, hint

__all__ = ["BY_ERROR", "BY_NUMBER", "CodeRow", "Flag", "Verdict", "explain", "flagged", "hint"]
