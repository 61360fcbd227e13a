"""Transactions raise errors that services can interpret, without any value of a row in them."""

import traceback
from contextlib import closing
from datetime import UTC, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text

from tests.constants import ANN
from tests.integration.db.rows import Rows, grant
from tests.stores import admin, sibling
from worker.db.session import Database
from worker.devkit.stack import Stack
from worker.domain.errors import ConfigurationError, StorageError, Unavailable


def test_a_transaction_is_all_or_nothing(rows: Rows) -> None:
    """An error in the middle, also one outside of SQL, leaves no half-written group."""
    rows.save(grant())

    def delete_and_stumble() -> None:
        with rows.database.begin() as connection:
            connection.execute(text("DELETE FROM mail_credentials"))
            raise LookupError

    with pytest.raises(LookupError):
        delete_and_stumble()
    assert rows.find().email == ANN


def test_connections_that_died_in_the_pool_are_replaced(rows: Rows, stack: Stack) -> None:
    """After a fail-over every pooled connection is dead. The first statement must not fail for it."""
    [(pid,)] = rows.sql("SELECT pg_backend_pid()")
    with closing(admin(stack)) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    assert rows.sql("SELECT pg_backend_pid()") != [(pid,)]


def test_values_come_in_binary(rows: Rows) -> None:
    """As text, a sealed token would be hexadecimal, which doubles the bytes of every refresh."""
    with rows.database.begin() as connection:
        result = connection.execute(text("SELECT CAST('\\x00ff' AS bytea) AS value"))
        assert result.cursor is not None
        assert result.cursor.format == psycopg.pq.Format.BINARY
        assert result.scalar_one() == b"\x00\xff"


def test_a_connection_that_dies_in_a_transaction_is_an_outage(rows: Rows, stack: Stack) -> None:
    """New tokens then wait in the outbox. Any other kind of error would lose them."""
    with closing(admin(stack)) as other, pytest.raises(Unavailable), rows.database.begin() as connection:
        die(connection, other)


def die(connection: Connection, other: psycopg.Connection) -> None:
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    connection.execute(text("SELECT 1"))


def test_a_server_that_hangs_is_an_outage(rows: Rows, stack: Stack) -> None:
    """Example: its disk is stuck. Connections stay open, TCP acknowledges, and no response ever arrives."""
    rows.save(grant())
    stack.postgres.pause()
    try:
        with pytest.raises(Unavailable):
            rows.find()
    finally:
        stack.postgres.resume()

    assert rows.find().email == ANN


@pytest.mark.parametrize("setting", ["transaction_read_only = on", "statement_timeout = '20ms'"])
def test_a_server_that_cannot_write_or_is_too_slow_is_an_outage(rows: Rows, setting: str) -> None:
    """A standby before its promotion or an overloaded server is retried, and the tokens are kept."""
    rows.save(grant())

    with pytest.raises(Unavailable), rows.database.begin() as connection:
        write_slowly(connection, setting)


def write_slowly(connection: Connection, setting: str) -> None:
    connection.execute(text(f"SET LOCAL {setting}"))
    connection.execute(text("UPDATE mail_credentials SET updated_at = now() WHERE pg_sleep(0.1) IS NOT NULL"))


def test_every_statement_has_a_time_limit(rows: Rows) -> None:
    """A batch must end within its lease, even if the server hangs."""
    assert rows.sql("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'")[0][0] in range(1, 30_001)


@pytest.mark.parametrize("change", [{"port": 1}, {"username": "stranger"}, {"database": "nowhere"}], ids=str)
def test_a_server_that_is_not_reached_is_an_outage_and_shows_no_password(
    database_url: str, change: dict[str, Any]
) -> None:
    """The message is shown to the operator and written to the log."""
    url = make_url(database_url)
    database = Database(url.set(**change).render_as_string(hide_password=False))

    with pytest.raises(Unavailable, match="the database cannot be used: ") as refusal:
        database.ping()

    database.close()
    assert url.password
    assert str(url.password) not in traceback_of(refusal.value)


def test_an_empty_database_says_to_migrate(stack: Stack) -> None:
    """The most common first mistake is reported in one sentence."""
    database = Database(sibling(stack.database_url, "postgres"))

    with pytest.raises(ConfigurationError, match="token-worker migrate"):
        Rows(database).row()

    database.close()


def test_a_rejected_statement_shows_nothing_of_the_row(rows: Rows) -> None:
    """Postgres quotes the whole row in its DETAIL line. Neither the message nor a logged traceback may contain it."""
    rows.save(grant())

    with pytest.raises(StorageError) as refusal:
        rows.sql("UPDATE mail_credentials SET use_oauth = false WHERE email = :email", email=ANN)

    assert "only_oauth_is_due" in str(refusal.value)
    assert ANN not in traceback_of(refusal.value)
    assert "Failing row" not in traceback_of(refusal.value)


def test_times_come_back_in_utc(rows: Rows) -> None:
    """The time zone of the server, the role or PGTZ has no effect."""
    rows.save(grant())

    due_at = rows.find().due_at

    assert due_at is not None
    assert due_at.tzinfo is not None
    assert due_at.utcoffset() == UTC.utcoffset(due_at)


def traceback_of(error: BaseException) -> str:
    """All text that a logged traceback would show, causes included."""
    return "".join(traceback.format_exception(error))


def test_an_operators_statement_may_take_longer(rows: Rows) -> None:
    """Counting ten million rows takes longer than the timeout of a refresh's statement.

    Other transactions keep their limits.
    """
    with rows.database.begin_long(timedelta(minutes=5)) as connection:
        assert limits(connection) == ("5min", 312.0)

    with rows.database.begin() as connection:
        assert limits(connection) == ("10s", 12.0)


def test_an_operators_statement_has_a_limit_too(rows: Rows) -> None:
    """An operator always gets a response in the end."""
    with pytest.raises(Unavailable), rows.database.begin_long(timedelta(milliseconds=20)) as connection:
        connection.execute(text("SELECT pg_sleep(60)"))

    with rows.database.begin() as connection:
        assert limits(connection) == ("10s", 12.0)


def limits(connection: Connection) -> tuple[str, float]:
    """The server's statement timeout, and the seconds after which the client gives up."""
    driver: Any = connection.connection.driver_connection
    return connection.execute(text("SHOW statement_timeout")).scalar_one(), driver.patience
