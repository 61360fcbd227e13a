"""PgBouncer with transaction pooling between worker and Postgres, as in docs/sizing.md.

Skipped if it is not installed.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.constants import HOUR
from tests.factories import NOW
from tests.integration.db.rows import Rows, grant
from tests.waiting import wait_for
from worker.db.session import Database
from worker.devkit.stack import privilege
from worker.devkit.stack.process import Process

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
CONNECTIONS = 2  # to Postgres, for all clients together
ATTEMPTS = 3  # a port may be taken between looking and binding

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@pytest.fixture(name="pooled", params=["ignore_startup_parameters = options", ""], ids=["configured", "as shipped"])
def _pooled(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A Database that reaches the test's Postgres only through PgBouncer. As shipped PgBouncer refuses ``options``, and
    so do poolers whose settings a customer cannot change."""
    scheme, _, rest = database_url.partition("://")
    credentials, _, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    address, _, name = place.partition("/")
    host, _, postgres_port = address.partition(":")
    target = f"{name} = host={host} port={postgres_port} dbname={name} user={user} password={password}"
    port, process = _started(tmp_path, target, request.param)
    database = Database(f"{scheme}://{user}@127.0.0.1:{port}/{name}", pool_size=8)
    yield database
    database.close()
    process.stop()


def _started(directory: Path, target: str, setting: str) -> tuple[int, Process]:
    """A running PgBouncer and the port on which it listens."""
    assert PGBOUNCER
    directory.chmod(0o711)
    rights = privilege.reduced(directory)
    output = ""
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        configuration = _configured(directory, target, port, setting)
        if rights.stranger:
            privilege.hand_over(directory)
        process = Process([*rights.prefix, PGBOUNCER, str(configuration)], log=directory / "pgbouncer.log")
        if _serves(process, port):
            return port, process
        output = process.output()
    raise AssertionError(f"PgBouncer did not start: {output[-2000:]}")


def _serves(process: Process, port: int) -> bool:
    """True once PgBouncer serves, False if it has exited."""
    wait_for(lambda: _listens(port) or not process.alive(), about="PgBouncer")
    return process.alive()


def _configured(directory: Path, target: str, port: int, setting: str) -> Path:
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"""
        [databases]
        {target}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = {CONNECTIONS}
        {setting}
    """.replace("        ", "")
    )
    return configuration


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_leases_work_through_a_transaction_pooler(pooled: Database) -> None:
    """There are more clients than connections, and the same statements run many times. Each account is leased once."""
    emails = [f"user{number}@contoso.com" for number in range(200)]
    rows = Rows(pooled)
    rows.save(*(grant(email) for email in emails))

    with ThreadPoolExecutor(8) as pool:
        leased = [lease.email for batch in pool.map(lambda _: rows.lease_due(limit=10), range(40)) for lease in batch]

    assert sorted(leased) == sorted(emails)
    assert rows.find(emails[0]).is_leased(NOW)


def test_times_mean_the_same_through_pgbouncer(pooled: Database) -> None:
    """PgBouncer does not pass on the session's time zone, so nothing may depend on it."""
    rows = Rows(pooled)
    rows.save(grant())
    with pooled.begin() as connection:
        connection.execute(text("SET LOCAL timezone = 'Asia/Kolkata'"))
        [due_at] = connection.execute(text("SELECT refresh_due_at FROM mail_credentials")).scalars()

    assert due_at == NOW
    assert rows.find().expires_at == NOW + HOUR


@pytest.mark.parametrize("pooled", [""], indirect=True)
def test_a_long_statement_is_ended_through_pgbouncer(pooled: Database) -> None:
    """The limit holds although the connection could not be opened with it."""
    rows = Rows(pooled)
    rows.save(grant())

    with pooled.begin() as connection:
        limits = connection.execute(
            text("SELECT current_setting('statement_timeout'), current_setting('timezone')")
        ).one()

    assert tuple(limits) == ("10s", "UTC")
