"""What may happen to Postgres and Redis. Each function strikes once, heals, and returns how often it struck."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg

from tests.chaos.fleet import MAILBOXES, QUIET, Fleet, until
from tests.waiting import wait_for
from worker.devkit.emulator import Hang

_MOMENT = 3.0  # seconds
_STUCK = 20.0  # seconds
_FEW = 6
_LONGER = 60.0  # seconds; a token that lives so long there is none, so that a new one is wanted
_REFUSE = """
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'new tokens are refused'; END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON mail_credentials FOR EACH ROW
    WHEN (OLD.access_token IS DISTINCT FROM NEW.access_token) EXECUTE FUNCTION refuse()
"""


def redis_flushed(fleet: Fleet) -> int:
    """Again and again: entries, queues, bindings and locks are gone, connections stay."""
    for _ in range(_FEW):
        fleet.until_asked(1)
        fleet.services.redis.flushall()
        _until_cached(fleet)
    return _FEW


def redis_killed(fleet: Fleet) -> int:
    fleet.until_asked(1)
    fleet.stack.valkey.kill()
    try:
        fleet.read_by_all()
    finally:
        fleet.stack.valkey.start()
    return 1


def redis_paused(fleet: Fleet) -> int:
    fleet.until_asked(1)
    fleet.stack.valkey.pause()
    try:
        fleet.pass_time(_MOMENT)
    finally:
        fleet.stack.valkey.resume()
    return 1


def redis_restarted_empty(fleet: Fleet) -> int:
    fleet.until_asked(1)
    fleet.stack.valkey.kill()
    try:
        shutil.rmtree(fleet.stack.directory / "valkey" / "data")
        fleet.read_by_all()
    finally:
        fleet.stack.valkey.start()
    _until_cached(fleet)
    return 1


def broker_gone_for_a_minute(fleet: Fleet) -> int:
    """The cache with it: every token runs out meanwhile, more than once."""
    fleet.stack.valkey.kill()
    try:
        fleet.pass_time(60.0)
    finally:
        fleet.stack.valkey.start()
    return 1


def postgres_killed(fleet: Fleet) -> int:
    fleet.until_asked(1)
    fleet.stack.postgres.kill()
    try:
        fleet.read_by_all()
    finally:
        fleet.stack.postgres.start()
    return 1


def postgres_gone_for_half_a_minute(fleet: Fleet) -> int:
    """Consumers get new tokens all the same, by what Redis holds."""
    fleet.stack.postgres.kill()
    try:
        fleet.pass_time(30.0)
    finally:
        fleet.stack.postgres.start()
    return 1


def postgres_hangs(fleet: Fleet) -> int:
    """Its disk is stuck, say: connections stay open and nobody answers, for longer than anybody has patience. What was
    under way is decided when it goes on, and nobody is left to hear of it."""
    fleet.until_asked(1)
    fleet.stack.postgres.pause()
    try:
        fleet.pass_time(_STUCK)
    finally:
        fleet.stack.postgres.resume()
    return 1


def postgres_drops_connections(fleet: Fleet) -> int:
    """A fail-over, as its clients see it."""
    fleet.until_asked(1)
    with fleet.superior() as connection:
        _drop_others(connection)
    return 1


def postgres_read_only(fleet: Fleet) -> int:
    fleet.until_asked(1)
    with _read_only(fleet):
        fleet.read_by_all()
    return 1


def postgres_refuses_the_persist(fleet: Fleet) -> int:
    """Claims are written, new tokens are not."""
    before = fleet.witness.asked
    with fleet.superior() as connection:
        connection.execute(_REFUSE)
        try:
            fleet.make_due()
            until(lambda: fleet.witness.asked >= before + MAILBOXES // 2, about="the questions")
            fleet.read_by_all()
        finally:
            connection.execute("DROP TRIGGER refuse ON mail_credentials")
    return 1


def postgres_lost_in_flight(fleet: Fleet) -> int:
    """Consumers want new tokens when Postgres is away, and a worker has just asked for the same ones."""
    struck = _prepared(fleet)
    before = fleet.witness.injected
    fleet.make_due(struck)
    until(lambda: fleet.witness.injected == before + len(struck), about="the worker's questions")
    fleet.stack.postgres.kill()
    try:
        _renew(fleet, struck)
    finally:
        fleet.stack.postgres.start()
    return len(struck)


def postgres_back_in_flight(fleet: Fleet) -> int:
    """Workers claim what is due once Postgres can be written again, and consumers have just asked for the same."""
    struck = _prepared(fleet)
    before = fleet.witness.injected
    with ThreadPoolExecutor(len(struck)) as consumers:
        with _read_only(fleet):
            _want(fleet, struck, consumers)
            until(lambda: fleet.witness.injected == before + len(struck), about="the consumers' questions")
        fleet.make_due(struck)
    return len(struck)


def postgres_lost_after_redis(fleet: Fleet) -> int:
    """What is stored while Redis is away never gets there; it must not pass for the truth when Postgres is lost."""
    struck = fleet.quiet
    _until_aged(fleet, struck)
    fleet.stack.valkey.kill()
    try:
        _renew(fleet, struck)
    finally:
        fleet.stack.valkey.start()
    fleet.stack.postgres.kill()
    try:
        _renew(fleet, struck)
    finally:
        fleet.stack.postgres.start()
    return 1


def _prepared(fleet: Fleet) -> Sequence[str]:
    """Some accounts whose tokens will be renewed on demand, and whose next answer will be slow."""
    struck = fleet.emails[:_FEW]
    _until_aged(fleet, struck)
    for email in struck:
        fleet.witness.add_fault(Hang(_MOMENT, after=True), email, times=1)
    return struck


def _until_aged(fleet: Fleet, struck: Sequence[str]) -> None:
    """A wish for a longer life gets a new token only once the one at hand has lived for a tenth of its own."""
    aged = """
        SELECT count(*) FROM mail_credentials
        WHERE email = ANY(%s) AND lease_id IS NULL AND now() < token_expiry
          AND now() - token_obtained_at > 0.2 * (token_expiry - token_obtained_at)
    """
    wait_for(lambda: fleet.deployment.sql(aged, list(struck)) == [(len(struck),)], about="tokens to age")


def _renew(fleet: Fleet, who: Sequence[str]) -> None:
    with ThreadPoolExecutor(len(who)) as consumers:
        _want(fleet, who, consumers)


def _want(fleet: Fleet, who: Sequence[str], consumers: ThreadPoolExecutor) -> None:
    """Ask for tokens that live longer than any: whoever can will get new ones."""
    for email in who:
        consumers.submit(fleet.client.get, email, min_ttl=_LONGER)


def _until_cached(fleet: Fleet) -> None:
    """The entries of those who are read are back."""
    redis, wanted = fleet.services.redis, MAILBOXES - QUIET
    until(lambda: sum(1 for _ in redis.scan_iter("token-worker:entry:*")) >= wanted, about="the cache to fill")


@contextmanager
def _read_only(fleet: Fleet) -> Iterator[None]:
    with fleet.superior() as connection:
        try:
            connection.execute("ALTER DATABASE app SET default_transaction_read_only = on")
            _drop_others(connection)
            yield
        finally:
            connection.execute("ALTER DATABASE app RESET default_transaction_read_only")
            _drop_others(connection)


def _drop_others(connection: psycopg.Connection) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
