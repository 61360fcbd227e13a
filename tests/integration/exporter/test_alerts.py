"""Each fault of a fleet fires the right alert within two minutes, and no other.

The fault happens in the real stores and at the emulator. The exporter is scraped before and after it, and promtool
evaluates the rules over these scrapes.
"""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.factories import TurnedClock, emails
from tests.integration.exporter.heartbeats import beat
from tests.integration.exporter.scraped import Exporter, Scraped
from tests.integration.exporter.timeline import FAULT, series
from tests.integration.installation import Installation
from tests.promtool import check_firing, needs_prometheus
from worker import clock as real_clock
from worker.cache import HeartbeatStore
from worker.devkit.emulator import fault_named
from worker.devkit.stack import Stack
from worker.domain.heartbeat import Role

pytestmark = needs_prometheus

TENANT, OTHERS = emails(250), emails(70, "fabrikam.com")
_WELL = ["TokenWorkerDeadMan"]
_UNTIL_SEEN = 75  # seconds that the fault has lasted when its scrape is made


@pytest.fixture(name="clock")
def _clock() -> TurnedClock:
    """The time of now, because Redis compares it with its own."""
    return TurnedClock(real_clock.utcnow())


class Fleet:
    """An installation with accounts that are all well, and with processes that live."""

    def __init__(self, installation: Installation, exporter: Exporter, directory: Path) -> None:
        self.installation = installation
        self._exporter = exporter
        self._directory = directory
        self._heartbeats = HeartbeatStore(installation.services.redis)
        installation.sign_in(*TENANT, *OTHERS)
        self.live()
        self._well = self.scrape()

    def live(self, **fields: object) -> None:
        """The processes of the fleet write their heartbeats, and a sweep ends."""
        for host, role in (("web-1", Role.WORKER), ("web-2", Role.WORKER), ("web-1", Role.BEAT)):
            beat(self.installation.services.redis, host=host, role=role, **fields)
        self._heartbeats.note_sweep()

    def scrape(self) -> Scraped:
        self._exporter.fleet.count()
        return self._exporter.scrape()

    def refresh_all(self) -> None:
        """All accounts become due and are requested, as far as the breaker lets them."""
        now = self.installation.clock()
        self.installation.query("UPDATE mail_credentials SET refresh_due_at = :now", now=now)
        for _ in range(2):
            self.installation.refresh_due()

    def check(self, *alerts: str, page: Scraped | None = None) -> None:
        """Exactly these alerts fire two minutes after the fault, and none before it."""
        at = self.installation.clock().timestamp()
        found = series(self._well, page or self.scrape(), scraped_at=at)
        check_firing(self._directory, found, {FAULT - 15: _WELL, FAULT + 120: [*_WELL, *alerts]})


@pytest.fixture(name="fleet")
def _fleet(installation: Installation, exporter: Exporter, tmp_path: Path) -> Fleet:
    return Fleet(installation, exporter, tmp_path)


def test_the_secret_has_expired(fleet: Fleet) -> None:
    fleet.installation.emulator.add_fault(fault_named("7000222"))
    fleet.refresh_all()

    fleet.check(
        "TokenWorkerAccountsFail",
        "TokenWorkerBreakerOpen",
        "TokenWorkerCredentialRefused",
        "TokenWorkerFailuresSpread",
    )


def test_a_tenant_blocks_the_app(fleet: Fleet) -> None:
    for email in TENANT:
        fleet.installation.emulator.add_fault(fault_named("700016"), email)
    fleet.refresh_all()

    fleet.check("TokenWorkerAccountsFail", "TokenWorkerFailuresSpread")


def test_microsoft_throttles(fleet: Fleet) -> None:
    fleet.installation.emulator.add_fault(fault_named("throttled"))
    fleet.refresh_all()

    fleet.check(
        "TokenWorkerAccountsFail", "TokenWorkerBreakerOpen", "TokenWorkerFailuresSpread", "TokenWorkerThrottled"
    )


def test_postgres_is_away(fleet: Fleet, exporter: Exporter, stores: Stack) -> None:
    stores.postgres.stop()

    fleet.check("TokenWorkerStoreDown", page=exporter.scrape())


def test_redis_is_away(fleet: Fleet, stores: Stack) -> None:
    stores.valkey.stop()

    fleet.check("TokenWorkerStoreDown")


def test_beat_is_dead(fleet: Fleet) -> None:
    age_of_sweep(fleet, _UNTIL_SEEN)

    fleet.check("TokenWorkerSweepsMissing")


def test_the_workers_are_dead(fleet: Fleet) -> None:
    """Beat lives, but no worker takes its sweeps."""
    redis = fleet.installation.services.redis
    redis.delete(redis.names.processes)
    beat(redis, host="web-1", role=Role.BEAT)
    age_of_sweep(fleet, _UNTIL_SEEN)

    fleet.check("TokenWorkerWorkersMissing")


def age_of_sweep(fleet: Fleet, seconds: float) -> None:
    """The last sweep ended so long ago."""
    redis = fleet.installation.services.redis
    redis.pexpire(redis.names.swept, timedelta(days=1) - timedelta(seconds=seconds))


def test_one_account_fails(fleet: Fleet) -> None:
    """This is no reason to wake a person, but it is visible."""
    fleet.installation.emulator.add_fault(fault_named("50173"), TENANT[0])
    fleet.refresh_all()

    fleet.check("TokenWorkerAccountsFail")


def test_a_key_is_missing_in_one_worker(fleet: Fleet) -> None:
    fleet.live(key_ids=("k2", "k1"))
    beat(fleet.installation.services.redis, host="web-2", key_ids=("k1",))

    fleet.check("TokenWorkerKeysMissing")


def test_three_hundred_sign_ins_are_revoked(fleet: Fleet) -> None:
    for email in [*TENANT, *OTHERS][:300]:
        fleet.installation.emulator.revoke(email)
    fleet.refresh_all()

    fleet.check("TokenWorkerAccountsFail", "TokenWorkerFailuresSpread", "TokenWorkerSignInsLost")


def test_a_clock_is_ten_minutes_off(fleet: Fleet) -> None:
    beat(fleet.installation.services.redis, host="web-3", at=real_clock.utcnow() + timedelta(minutes=10))

    fleet.check("TokenWorkerClockSkew")
