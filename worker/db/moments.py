"""Instants and durations of Postgres that Python has not: ``infinity``, and years before 1 or after 9999.

psycopg raises for them, so one row with such a value would make each statement fail that reads it among others.
"""

from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any

from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of Postgres
_MICROSECOND = timedelta(microseconds=1)
# The nearest values that leave room for sums and differences.
_EARLIEST = (datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST = (datetime(3000, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LONGEST = timedelta(days=36_500)

_read_instant = Struct("!q").unpack
_read_interval = Struct("!qii").unpack


class InstantLoader(Loader):
    """A ``timestamptz``."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        (microseconds,) = _read_instant(data)
        return _EPOCH + timedelta(microseconds=min(max(microseconds, _EARLIEST), _LATEST))


class IntervalLoader(Loader):
    """An ``interval``. A month has 30 days, a year 365, as in psycopg."""

    format = Format.BINARY

    def load(self, data: Buffer) -> timedelta:
        microseconds, days, months = _read_interval(data)
        sign = -1 if months < 0 else 1
        years, rest = divmod(abs(months), 12)
        total = min(max(days + sign * (365 * years + 30 * rest), -_LONGEST.days), _LONGEST.days)
        return min(max(timedelta(days=total, microseconds=microseconds), -_LONGEST), _LONGEST)


def load_any_moment(connection: Any) -> None:
    """Register the loaders for one connection."""
    connection.adapters.register_loader("timestamptz", InstantLoader)
    connection.adapters.register_loader("interval", IntervalLoader)
