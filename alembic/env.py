"""Runs migrations, one transaction each and one runner at a time, without blocking workers for long."""

import re
import time
from collections.abc import Mapping

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text

from alembic import context
from worker.db.address import parameters
from worker.db.models import Base
from worker.settings import DatabaseSettings, load

# A migration that waits for a lock blocks all statements behind it. So it fails soon, and the operator repeats it.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
_POLL_INTERVAL = 0.2  # seconds
ADVISORY_LOCK = 0x746F6B656E  # "token" in ASCII; any number that no other program uses


_PARTITION = re.compile(r"refresh_(events|successes)_(default|old|\d{8})")  # not in the models


def migrate(connection: Connection) -> None:
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    wait_for_other_runners(connection)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        include_name=_is_in_models,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _is_in_models(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    return kind != "table" or not _PARTITION.fullmatch(name or "")


def wait_for_other_runners(connection: Connection) -> None:
    """Poll until no other runner holds the lock.

    A statement that waited for it would hold a snapshot, and an index that is built concurrently waits for snapshots.
    """
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}).scalar_one():
        connection.rollback()
        time.sleep(_POLL_INTERVAL)
    connection.commit()


def main() -> None:
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    # Not through the ini file, which interprets a % in a password.
    url = load(DatabaseSettings).database_url.get_secret_value()
    # Without a pool, because a connection that stayed open after a failure would keep the advisory lock.
    engine = create_engine(
        "postgresql+psycopg://",
        poolclass=NullPool,
        hide_parameters=True,
        creator=lambda: psycopg.connect(**{"connect_timeout": 5} | parameters(url)),
    )
    with engine.connect() as connection:
        migrate(connection)


main()
