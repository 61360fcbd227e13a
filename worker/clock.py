"""The only module that reads the time. Services take the clock as an argument, so that tests can set it."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the only place
