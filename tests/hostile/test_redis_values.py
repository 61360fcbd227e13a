"""A writer to Redis may make things slow. No value in Redis may stop the refresh of an account."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.constants import ANN, BOB
from worker.bootstrap import Services
from worker.cache import connect
from worker.devkit.emulator import Emulator
from worker.domain.account import Grant, account_id
from worker.domain.token import Secret

DEEP = b"[" * 200_000

OUTBOX = [DEEP, b'{"tokens": {}}', b"[]", b'"x"', b"null", b"\xff", b"1e400", b"x" * 5_000_000, b""]
TIMES = [b"inf", b"-inf", b"nan", b"x", b"1e18", b"1e400", b"\xff", b"", b"9" * 100_000]


@pytest.fixture(name="redis")
def _redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


def sign_in(services: Services, emulator: Emulator, *emails: str) -> None:
    granted = [emulator.enrol(email) for email in emails]
    services.accounts.save([Grant(email=each.email, refresh_token=Secret(each.refresh_token)) for each in granted])


@pytest.mark.parametrize("value", OUTBOX, ids=lambda value: repr(value[:12]))
def test_no_outbox_value_stops_a_batch(services: Services, emulator: Emulator, redis: Redis, value: bytes) -> None:
    sign_in(services, emulator, ANN, BOB)
    redis.hset("token-worker:outbox", mapping={str(account_id("eve@contoso.com")): value, "x": value})

    assert services.refresher.batches_due(limit=1) == ["default"]
    assert services.refresher.refresh_due() == {"leased": 2, "refreshed": 2}


@pytest.mark.parametrize("value", TIMES, ids=lambda value: repr(value[:12]))
def test_no_throttle_value_stops_a_batch(services: Services, emulator: Emulator, redis: Redis, value: bytes) -> None:
    sign_in(services, emulator, ANN, BOB)
    redis.set("token-worker:pause:default:contoso.com", value)

    assert services.refresher.refresh_due() == {"leased": 2, "refreshed": 2}
