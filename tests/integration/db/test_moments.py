"""Instants and durations are those of psycopg, as far as Python has them, and the nearest otherwise."""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg import connect

from tests.integration.db.rows import Rows

INSTANTS = ["2026-03-02 09:30:00.123456+00", "1970-01-01 00:00:00+00", "1999-12-31 23:59:59.999999+00", "2030-06-01+05"]
INTERVALS = ["1 day", "-3 hours", "1 year 2 months 3 days 04:05:06.789", "-14 months", "0"]


@pytest.mark.parametrize(("kind", "values"), [("timestamptz", INSTANTS), ("interval", INTERVALS)])
def test_values_are_those_of_psycopg(rows: Rows, database_url: str, kind: str, values: list[str]) -> None:
    with connect(database_url.replace("postgresql+psycopg://", "postgresql://")) as plain:
        for value in values:
            [expected] = plain.execute(f"SELECT '{value}'::{kind}", binary=True).fetchone() or ()
            assert rows.sql(f"SELECT CAST('{value}' AS {kind})") == [(expected,)]


@pytest.mark.parametrize("value", ["infinity", "294276-12-31 23:59:59+00", "10000-01-01 00:00:00+00"])
def test_a_late_instant_leaves_room_for_sums(rows: Rows, value: str) -> None:
    [(found,)] = rows.sql(f"SELECT CAST('{value}' AS timestamptz)")
    assert found + timedelta(days=36_500) > found == datetime(3000, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", ["-infinity", "4713-01-01 00:00:00+00 BC", "0001-01-01 00:00:00+00"])
def test_an_early_instant_leaves_room_for_differences(rows: Rows, value: str) -> None:
    [(found,)] = rows.sql(f"SELECT CAST('{value}' AS timestamptz)")
    assert found - timedelta(days=36_500) < found == datetime(1900, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", ["infinity", "170000000 years", "2000000000 days", "2500000000 hours"])
def test_a_long_interval_is_a_century(rows: Rows, value: str) -> None:
    assert rows.sql(f"SELECT CAST('{value}' AS interval)") == [(timedelta(days=36_500),)]
