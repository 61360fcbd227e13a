"""The only reader of time. Services take it as an argument, so that a test can travel."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - here and nowhere else
