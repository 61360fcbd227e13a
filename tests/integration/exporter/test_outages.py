"""A family is absent while its store is away, and no outage makes a scrape fail or hang."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.constants import ANN
from tests.integration.exporter.scraped import Exporter
from tests.integration.installation import Installation
from tests.waiting import wait_for
from worker.devkit.stack import Stack

_OF_POSTGRES = {
    "oldest_overdue_seconds",
    "breaker_open",
    "accounts",
    "expired_accounts",
    "refresh_duration_seconds_count",
}
_OF_REDIS = {"outbox_entries", "workers_lacking_keys"}
_OF_THE_BROKER = {"queue_messages"}
_ALWAYS = {"store_up", "build_info", "collection_duration_seconds"}
_PATIENCE = 9.0  # seconds; Prometheus gives up after ten


def up(exporter: Exporter) -> dict[str, float | None]:
    page = exporter.scrape()
    return {name: page.get("store_up", store=name) for name in ("postgres", "redis", "broker")}


def test_everything_is_there_while_the_stores_answer(installation: Installation, exporter: Exporter) -> None:
    installation.sign_in(ANN)
    exporter.fleet.count()

    assert {*exporter.scrape().samples} >= _OF_POSTGRES | _OF_REDIS | _OF_THE_BROKER | _ALWAYS


def test_postgres_away(installation: Installation, exporter: Exporter, stores: Stack) -> None:
    installation.sign_in(ANN)
    exporter.fleet.count()
    exporter.scrape()
    stores.postgres.stop()

    found = {*exporter.scrape().samples}

    assert not found & _OF_POSTGRES
    assert found >= _OF_REDIS | _OF_THE_BROKER | _ALWAYS
    assert up(exporter) == {"postgres": 0, "redis": 1, "broker": 1}


def test_redis_away_and_back(installation: Installation, exporter: Exporter, stores: Stack) -> None:
    installation.sign_in(ANN)
    exporter.fleet.count()
    exporter.scrape()
    stores.valkey.stop()

    found = {*exporter.scrape().samples}
    away = up(exporter)
    stores.valkey.start()

    assert not found & (_OF_REDIS | _OF_THE_BROKER)
    assert found >= _OF_POSTGRES | _ALWAYS
    assert away == {"postgres": 1, "redis": 0, "broker": 0}
    assert up(exporter) == {"postgres": 1, "redis": 1, "broker": 1}


def test_a_store_that_hangs_costs_seconds(installation: Installation, new_exporter: Callable[..., Exporter]) -> None:
    """The connection is open and no answer comes. The scrapes that follow do not add up."""
    installation.sign_in(ANN)
    exporter = new_exporter()
    with installation.lock_accounts():
        begun = time.monotonic()
        states = [up(exporter) for _ in range(2)]
        spent = time.monotonic() - begun

    wait_for(lambda: up(exporter)["postgres"], about="Postgres to be read again")
    assert states == [{"postgres": 0, "redis": 1, "broker": 1}] * 2
    assert spent < 2 * _PATIENCE


def test_a_value_of_another_type_hides_no_other_store(installation: Installation, exporter: Exporter) -> None:
    """Another program may write to Redis. The outbox counts as empty then, and a queue has no length."""
    installation.services.redis.set("token-worker:outbox", b"text")
    installation.services.redis.set("ondemand", b"text")

    assert up(exporter) == {"postgres": 1, "redis": 1, "broker": 0}


def test_a_bug_with_one_store_hides_no_other(installation: Installation, exporter: Exporter) -> None:
    """The scrape does not fail, and the log has the traceback once."""
    installation.query("ALTER TABLE oauth_clients ALTER failure_kind TYPE int USING 1")
    installation.query("INSERT INTO oauth_clients (name, failure_kind, updated_at) VALUES ('default', 1, now())")

    assert [up(exporter) for _ in range(2)] == [{"postgres": 0, "redis": 1, "broker": 1}] * 2
    assert [entry["event"] for entry in installation.logs].count("Store cannot be read because of a bug") == 1


def test_one_exporter_counts_and_the_others_do_not(
    installation: Installation, new_exporter: Callable[..., Exporter]
) -> None:
    """The first one holds the lock between its counts. When it ends, another one takes over."""
    first, second = new_exporter(), new_exporter()
    installation.sign_in(ANN)
    with running(first), running(second):
        wait_for(lambda: counts(first) or counts(second), about="a count of all accounts")
        leader, other = (first, second) if counts(first) else (second, first)
        both = counts(leader), counts(other)
        leader.fleet.stop()
        wait_for(lambda: counts(other), about="the other exporter to take over")

    assert both == (True, False)


def counts(exporter: Exporter) -> bool:
    return exporter.scrape().get("expired_accounts") is not None


@contextmanager
def running(exporter: Exporter) -> Iterator[None]:
    """Count in the background."""
    thread = threading.Thread(target=exporter.fleet.run)
    thread.start()
    yield
    exporter.fleet.stop()
    thread.join()


def test_a_count_that_is_minutes_old_is_not_shown(installation: Installation, exporter: Exporter) -> None:
    """The counts since then have failed."""
    installation.sign_in(ANN)
    exporter.fleet.count()
    installation.clock.advance(minutes=4)

    assert not counts(exporter)
