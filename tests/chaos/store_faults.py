"""Faults of Postgres and Redis. Each function injects its fault, ends it, and returns the number of occurrences."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg

from tests.chaos.fleet import MAILBOXES, UNREAD, Fleet, until
from tests.chaos.names import NOWHERE
from tests.waiting import wait_for
from worker.devkit.emulator import Hang

_SHORT_OUTAGE = 3.0  # seconds
_HANG = 20.0  # seconds
_FLUSHES = 6
_ACCOUNTS = 6
_MIN_TTL = 60.0  # seconds; longer than any token lives, so that consumers require a new one
_REFUSE = """
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'new tokens are refused'; END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON mail_credentials FOR EACH ROW
    WHEN (OLD.access_token IS DISTINCT FROM NEW.access_token) EXECUTE FUNCTION refuse()
"""


def redis_flushed(fleet: Fleet) -> int:
    """Several times. Entries, queues, bindings and locks are lost, connections stay."""
    for _ in range(_FLUSHES):
        fleet.until_requested(1)
        fleet.services.redis.flushall()
        _until_cached(fleet)
    return _FLUSHES


def redis_killed(fleet: Fleet) -> int:
    fleet.until_requested(1)
    fleet.stack.valkey.kill()
    try:
        fleet.read_by_all()
    finally:
        fleet.stack.valkey.start()
    return 1


def redis_paused(fleet: Fleet) -> int:
    fleet.until_requested(1)
    fleet.stack.valkey.pause()
    try:
        fleet.pass_time(_SHORT_OUTAGE)
    finally:
        fleet.stack.valkey.resume()
    return 1


def redis_restarted_empty(fleet: Fleet) -> int:
    fleet.until_requested(1)
    fleet.stack.valkey.kill()
    try:
        shutil.rmtree(fleet.stack.directory / "valkey" / "data")
        fleet.read_by_all()
    finally:
        fleet.stack.valkey.start()
    _until_cached(fleet)
    return 1


def redis_demoted(fleet: Fleet) -> int:
    """It becomes a replica under open connections, and the primary again."""
    fleet.until_requested(1)
    fleet.services.redis.replicaof("127.0.0.1", 1)
    try:
        fleet.pass_time(_SHORT_OUTAGE)
    finally:
        fleet.services.redis.replicaof("NO", "ONE")
    return 1


def broker_gone_for_a_minute(fleet: Fleet) -> int:
    """The cache is lost as well, and every token expires meanwhile, more than once."""
    fleet.stack.valkey.kill()
    try:
        fleet.pass_time(60.0)
    finally:
        fleet.stack.valkey.start()
    return 1


def postgres_killed(fleet: Fleet) -> int:
    fleet.until_requested(1)
    fleet.stack.postgres.kill()
    try:
        fleet.read_by_all()
    finally:
        fleet.stack.postgres.start()
    return 1


def postgres_gone_for_half_a_minute(fleet: Fleet) -> int:
    """Longer than any token lives: consumers get the tokens that live, then an error. No token is lost."""
    fleet.stack.postgres.kill()
    try:
        fleet.pass_time(30.0)
    finally:
        fleet.stack.postgres.start()
    return 1


def postgres_hangs(fleet: Fleet) -> int:
    """As if its disk hung. Connections stay open and get no response for longer than any time limit. Afterwards it
    finishes statements whose clients have given up."""
    fleet.until_requested(1)
    fleet.stack.postgres.pause()
    try:
        fleet.pass_time(_HANG)
    finally:
        fleet.stack.postgres.resume()
    return 1


def postgres_drops_connections(fleet: Fleet) -> int:
    """A fail-over, as clients of Postgres see it."""
    fleet.until_requested(1)
    with fleet.admin_connection() as connection:
        _drop_others(connection)
    return 1


def postgres_read_only(fleet: Fleet) -> int:
    """New connections can write again afterwards, but those that are open cannot, as after a fail-over."""
    fleet.until_requested(1)
    with _read_only(fleet):
        fleet.read_by_all()
    return 1


def postgres_refuses_the_persist(fleet: Fleet) -> int:
    """Postgres accepts leases, but no new tokens."""
    before = fleet.emulator.requests
    with fleet.admin_connection() as connection:
        connection.execute(_REFUSE)
        try:
            fleet.make_due()
            until(lambda: fleet.emulator.requests >= before + MAILBOXES // 2, about="the requests")
            fleet.read_by_all()
        finally:
            connection.execute("DROP TRIGGER refuse ON mail_credentials")
    return 1


def postgres_lost_in_flight(fleet: Fleet) -> int:
    """A worker has just requested tokens when Postgres is lost: they wait in the outbox. Consumers require the same."""
    affected = _aged_and_slow(fleet)
    before = fleet.emulator.injected
    fleet.make_due(affected)
    until(lambda: fleet.emulator.injected == before + len(affected), about="the worker's requests")
    fleet.stack.postgres.kill()
    try:
        _renew(fleet, affected)
    finally:
        fleet.stack.postgres.start()
    return len(affected)


def postgres_lost_after_redis(fleet: Fleet) -> int:
    """Tokens that are stored while Redis is down are missing there. Its old entries are served while they live when
    Postgres is lost."""
    affected = fleet.unread
    _until_aged(fleet, affected)
    fleet.stack.valkey.kill()
    try:
        _renew(fleet, affected)
    finally:
        fleet.stack.valkey.start()
    fleet.stack.postgres.kill()
    try:
        _renew(fleet, affected)
    finally:
        fleet.stack.postgres.start()
    return 1


def postgres_name_leads_nowhere(fleet: Fleet) -> int:
    """All connections end, and no server listens, as while a name still leads to a machine that is gone."""
    fleet.until_requested(1)
    with fleet.names.leads(fleet.names.postgres, NOWHERE):
        fleet.pass_time(_SHORT_OUTAGE)
    return 1


def postgres_name_leads_to_a_standby(fleet: Fleet) -> int:
    """Connections to the hot standby stay open when the name leads to the primary again."""
    fleet.until_requested(1)
    with fleet.names.leads(fleet.names.postgres, fleet.names.hot_standby):
        fleet.pass_time(_SHORT_OUTAGE)
    return 1


def redis_name_leads_nowhere(fleet: Fleet) -> int:
    fleet.until_requested(1)
    with fleet.names.leads(fleet.names.redis, NOWHERE):
        fleet.pass_time(_SHORT_OUTAGE)
    return 1


def redis_name_leads_to_a_replica(fleet: Fleet) -> int:
    fleet.until_requested(1)
    with fleet.names.leads(fleet.names.redis, fleet.names.replica):
        fleet.pass_time(_SHORT_OUTAGE)
    return 1


def redis_name_leads_to_an_empty_server(fleet: Fleet) -> int:
    """It takes entries and messages, which are lost for the fleet. Later it has old ones. In the end it is shut down:
    a client takes any server that accepts its writes for the right one."""
    fleet.until_requested(1)
    with fleet.names.leads(fleet.names.redis, fleet.names.empty_redis):
        fleet.pass_time(_SHORT_OUTAGE)
    fleet.names.redis.cut()
    return 1


def _aged_and_slow(fleet: Fleet) -> Sequence[str]:
    """Some accounts whose tokens will be renewed on demand, and whose next response will be slow."""
    affected = fleet.emails[:_ACCOUNTS]
    _until_aged(fleet, affected)
    for email in affected:
        fleet.emulator.add_fault(Hang(_SHORT_OUTAGE, after=True), email, times=1)
    return affected


def _until_aged(fleet: Fleet, affected: Sequence[str]) -> None:
    """A consumer that requires a longer life gets a new token only after a tenth of the lifetime of the stored one."""
    aged = """
        SELECT count(*) FROM mail_credentials
        WHERE email = ANY(%s) AND lease_id IS NULL AND now() < token_expiry
          AND now() - token_obtained_at > 0.2 * (token_expiry - token_obtained_at)
    """
    wait_for(lambda: fleet.deployment.sql(aged, list(affected)) == [(len(affected),)], about="tokens to age")


def _renew(fleet: Fleet, affected: Sequence[str]) -> None:
    with ThreadPoolExecutor(len(affected)) as consumers:
        _require_new(fleet, affected, consumers)


def _require_new(fleet: Fleet, affected: Sequence[str], consumers: ThreadPoolExecutor) -> None:
    """Read with a requirement that only a new token can satisfy, if at all."""
    for email in affected:
        consumers.submit(fleet.client.get, email, min_ttl=_MIN_TTL)


def _until_cached(fleet: Fleet) -> None:
    """Wait until Redis has the entries of all accounts that consumers read."""
    redis, wanted = fleet.services.redis, MAILBOXES - UNREAD
    until(lambda: sum(1 for _ in redis.scan_iter("token-worker:entry:*")) >= wanted, about="the cache to fill")


@contextmanager
def _read_only(fleet: Fleet) -> Iterator[None]:
    with fleet.admin_connection() as connection:
        try:
            connection.execute("ALTER DATABASE app SET default_transaction_read_only = on")
            _drop_others(connection)
            yield
        finally:
            connection.execute("ALTER DATABASE app RESET default_transaction_read_only")
            fleet.services.database.close()  # the observer's connections, which no process of the fleet has


def _drop_others(connection: psycopg.Connection) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
