"""The metrics are the state of the stores, whichever process has caused it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.constants import ANN, BOB, CAT, DAN, HOUR
from tests.factories import emails
from tests.integration.exporter.heartbeats import beat
from tests.integration.exporter.scraped import Exporter
from tests.integration.installation import Installation
from worker.cache import HeartbeatStore
from worker.clock import utcnow
from worker.domain.account import account_id
from worker.domain.heartbeat import Role


def test_accounts_by_state_and_what_their_users_can_read(installation: Installation, exporter: Exporter) -> None:
    installation.sign_in(ANN, BOB)
    installation.sign_in(CAT, DAN, due=True)
    installation.services.accounts.pause(BOB)
    exporter.fleet.count()

    page = exporter.scrape()

    assert page.get("accounts", client="default", status="active") == 3
    assert page.get("accounts", client="default", status="paused") == 1
    assert page.get("accounts", client="default", status="reauth_required") == 0
    assert page.get("due_accounts") == 2
    assert page.get("expired_accounts") == 2  # never had a token
    assert page.get("accounts_expiring", within="15m") == 0
    assert page.get("accounts_expiring", within="1h") == 1


def test_tokens_and_grants_that_end(installation: Installation, exporter: Exporter) -> None:
    installation.sign_in(ANN, lifetime=timedelta(minutes=10))
    installation.sign_in(BOB)
    exporter.fleet.count()
    before = exporter.scrape()
    installation.clock.advance(days=85)
    exporter.fleet.count()
    after = exporter.scrape()

    assert [before.get("accounts_expiring", within=span) for span in ("5m", "15m", "1h")] == [0, 1, 2]
    assert [before.get("grants_ending", within=span) for span in ("1d", "7d", "30d")] == [0, 0, 0]
    assert [after.get("grants_ending", within=span) for span in ("1d", "7d", "30d")] == [0, 2, 2]
    assert after.get("expired_accounts") == 2


def test_the_longest_overdue_account_of_each_registration(
    installation: Installation, new_exporter: Callable[..., Exporter]
) -> None:
    """A leased account is not overdue, and a registration without due accounts has 0."""
    installation.sign_in(ANN, due=True)
    installation.sign_in(BOB)
    installation.query("UPDATE mail_credentials SET client = 'other-app' WHERE email = :email", email=BOB)
    installation.clock.advance(seconds=90)
    exporter = new_exporter()

    overdue = exporter.scrape()
    installation.query("UPDATE mail_credentials SET lease_id = id, lease_until = :end", end=installation.clock() + HOUR)
    leased = exporter.scrape()

    assert overdue.get("oldest_overdue_seconds", client="default") == 90
    assert overdue.get("oldest_overdue_seconds", client="other-app") == 0
    assert leased.get("oldest_overdue_seconds", client="default") == 0


def test_an_open_breaker_and_the_accounts_that_fail(installation: Installation, exporter: Exporter) -> None:
    installation.sign_in(*emails(5), due=True)
    closed = exporter.scrape()
    installation.reject_secret()
    installation.refresh_due()
    exporter.fleet.count()

    page = exporter.scrape()

    assert closed.get("breaker_open", client="default") == 0
    assert page.get("breaker_open", client="default") == 1
    assert page.get("failing_accounts", client="default", code="AADSTS7000215") == 5


def test_the_last_success(installation: Installation, exporter: Exporter) -> None:
    installation.sign_in(ANN, due=True)
    exporter.fleet.count()
    before = exporter.scrape()
    installation.refresh_due()
    exporter.fleet.count()

    assert before.get("last_success_timestamp_seconds") is None
    assert exporter.scrape().get("last_success_timestamp_seconds") == installation.clock().timestamp()


def test_results_that_wait_in_the_outbox(installation: Installation, exporter: Exporter) -> None:
    redis = installation.services.redis
    redis.hset("token-worker:outbox", str(account_id(ANN)), b"sealed")

    assert exporter.scrape().get("outbox_entries") == 1


def test_messages_in_the_queues(installation: Installation, exporter: Exporter) -> None:
    installation.services.redis.lpush("ondemand", b"{}", b"{}")

    page = exporter.scrape()

    assert page.get("queue_messages", queue="ondemand") == 2
    assert page.get("queue_messages", queue="sweep") == 0
    assert page.get("queue_messages", queue="refresh") == 0


def test_the_last_sweep_and_the_heartbeats(installation: Installation, exporter: Exporter) -> None:
    before = exporter.scrape()
    HeartbeatStore(installation.services.redis).note_sweep()
    beat(installation.services.redis, host="one", pid=1)
    beat(installation.services.redis, host="one", pid=2)
    beat(installation.services.redis, host="two", pid=1)
    beat(installation.services.redis, host="three", pid=1, role=Role.BEAT)

    page, now = exporter.scrape(), installation.clock().timestamp()

    assert before.get("last_sweep_timestamp_seconds") is None
    assert before.values("host", "worker_heartbeat_timestamp_seconds") == set()
    assert page.get("last_sweep_timestamp_seconds") == pytest.approx(now, abs=30)
    assert page.values("host", "worker_heartbeat_timestamp_seconds") == {"one", "two"}
    assert page.get("worker_heartbeat_timestamp_seconds", host="one") == pytest.approx(now, abs=30)


def test_a_worker_that_lacks_a_key(installation: Installation, exporter: Exporter) -> None:
    beat(installation.services.redis, host="one", key_ids=("k2", "k1"))
    beat(installation.services.redis, host="two", key_ids=("k1", "k2"))
    alike = exporter.scrape()
    beat(installation.services.redis, host="three", key_ids=("k1",))

    assert alike.get("workers_lacking_keys") == 0
    assert exporter.scrape().get("workers_lacking_keys") == 1


def test_the_clock_that_is_farthest_off(installation: Installation, exporter: Exporter) -> None:
    """The clock of the test stands months behind, and so do the differences."""
    behind = (installation.clock() - utcnow()).total_seconds()
    beat(installation.services.redis, host="one")
    right = exporter.scrape().get("clock_skew_seconds")
    beat(installation.services.redis, host="two", at=utcnow() + timedelta(minutes=10))
    ahead = exporter.scrape().get("clock_skew_seconds")

    assert right == pytest.approx(-behind, abs=60)
    assert ahead == pytest.approx(-behind + 600, abs=60)


def test_ends_of_credentials(new_exporter: Callable[..., Exporter], tmp_path: Path) -> None:
    """The private key need not be there. A file that cannot be read makes no sample."""
    ends = datetime(2027, 3, 4, tzinfo=UTC)
    (tmp_path / "client.pem").write_bytes(trustme.CA().issue_cert("worker", not_after=ends).cert_chain_pems[0].bytes())
    exporter = new_exporter(
        client_certificate=tmp_path / "client.pem",
        next_client_secret_expires="2027-05-31",
        clients={"other": {"client_id": "1", "client_secret": "x", "client_certificate": tmp_path / "missing.pem"}},
    )

    page = exporter.scrape()

    assert page.get("credential_expiry_timestamp_seconds", client="default", slot="current") == ends.timestamp()
    assert (
        page.get("credential_expiry_timestamp_seconds", client="default", slot="next")
        == datetime(2027, 5, 31, tzinfo=UTC).timestamp()
    )
    assert page.values("client", "credential_expiry_timestamp_seconds") == {"default"}
