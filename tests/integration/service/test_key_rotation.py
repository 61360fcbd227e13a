"""A new key, while everything runs: each value is re-sealed, none is lost, and the old key can go."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from tests.integration.service.house import ANN, BOB, CAT, House
from worker.bootstrap import Services
from worker.cache import OutboxStore
from worker.devkit.stack import Stack
from worker.domain.account import Grant, Status, account_id
from worker.domain.errors import ConfigurationError, Unavailable, UnreadableSecret
from worker.domain.secret import Secret
from worker.service.accounts.key_rotation import KeyRotationReport
from worker.vault import generate_key

_NEW = generate_key("k2")


def _with_both(house: House) -> Services:
    """A process that has been given the new key, with the old one behind it."""
    return house.another(encryption_keys=SecretStr(f"{_NEW},{house.settings.encryption_keys.get_secret_value()}"))


def _with_new(house: House) -> Services:
    return house.another(encryption_keys=SecretStr(_NEW))


def _rotate(services: Services, progress: Callable[[int], None] = lambda _: None) -> KeyRotationReport:
    return services.key_rotation.rotate(progress=progress)


def _emails(count: int) -> list[str]:
    return [f"user{number:04}@contoso.com" for number in range(count)]


def _store(house: House, *emails: str) -> None:
    house.services.accounts.save([Grant(email=email, refresh_token=Secret(f"of {email}")) for email in emails])


def test_after_a_rotation_the_old_key_can_go(house: House) -> None:
    """A process that never saw the old key serves, refreshes and spends every token, without the cache's help."""
    house.enrol(ANN, BOB, strict=True)
    house.services.refresher.refresh_due()
    house.sign_in(CAT)

    assert _rotate(_with_both(house)) == KeyRotationReport(rotated=3, unreadable=0, remaining=0)

    new = _with_new(house)
    house.services.redis.flushall()
    assert [new.tokens.get(email).email for email in (ANN, BOB, CAT)] == [ANN, BOB, CAT]
    house.clock.advance(hours=2)
    assert new.refresher.refresh_due() == {"claimed": 3, "refreshed": 3}
    assert house.emulator.statistics().failures == 0


def test_before_a_rotation_the_old_key_is_needed(house: House) -> None:
    """The counter-proof: what is not re-sealed is lost to who has only the new key."""
    house.sign_in(ANN)
    house.services.redis.flushall()

    with pytest.raises(UnreadableSecret):
        _with_new(house).tokens.get(ANN)


def test_an_entry_in_redis_under_the_old_key_is_a_miss(house: House) -> None:
    """The cache is not re-sealed: who cannot open an entry writes a new one."""
    house.sign_in(ANN)
    before = house.services.tokens.get(ANN)
    _rotate(_with_both(house))
    new = _with_new(house)

    assert new.tokens.get(ANN) == before
    with house.counted() as statements:
        assert new.tokens.get(ANN) == before
    assert statements == []


def test_a_rotation_done_is_done(house: House) -> None:
    """Run again, it finds nothing; run without a new key, neither."""
    house.sign_in(ANN)
    both = _with_both(house)

    assert _rotate(house.services) == KeyRotationReport(0, 0, 0)
    assert _rotate(both) == KeyRotationReport(1, 0, 0)
    assert _rotate(both) == KeyRotationReport(0, 0, 0)


def test_a_rotation_goes_through_every_page_and_says_how_far_it_is(house: House) -> None:
    """A million rows take a while; whoever waits wants to see that it moves."""
    _store(house, *_emails(1001))
    steps = list[int]()

    report = _rotate(_with_both(house), steps.append)

    assert report == KeyRotationReport(rotated=1001, unreadable=0, remaining=0)
    assert steps == [*range(100, 1001, 100), 1001]


def test_an_interrupted_rotation_goes_on_where_it_stopped(house: House) -> None:
    """What is done is done: it is committed page by page."""
    _store(house, *_emails(1001))
    both = _with_both(house)

    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _rotate(both, interrupt)

    assert _rotate(both) == KeyRotationReport(rotated=901, unreadable=0, remaining=0)


def test_a_check_finds_a_key_that_is_missing_and_a_value_that_is_damaged(house: House) -> None:
    """Whoever deploys with the wrong keys wants to know before a refresh is due."""
    house.enrol(ANN, BOB)
    house.services.accounts.disconnect(BOB)
    house.services.key_rotation.check()

    with pytest.raises(ConfigurationError, match="'k1', which is not in WORKER_ENCRYPTION_KEYS"):
        _with_new(house).key_rotation.check()

    house.query("UPDATE mail_credentials SET refresh_token = refresh_token || '\\x00' WHERE email = :email", email=ANN)
    with pytest.raises(ConfigurationError, match=str(account_id(ANN))):
        house.services.key_rotation.check()

    house.services.refresher.refresh_due()
    assert house.account().status is Status.UNREADABLE
    house.services.key_rotation.check()  # `status` tells of it


def test_what_opens_with_no_key_is_counted_and_left_as_it_is(house: House) -> None:
    """Its key may be found in an old backup; until then the old ones must stay, and the report says so."""
    house.enrol(ANN, BOB, CAT)
    lost = house.another(encryption_keys=SecretStr(generate_key("lost")))
    lost.accounts.save([house.grant(BOB)])
    house.query("UPDATE mail_credentials SET refresh_token = '\\x00' WHERE email = :email", email=CAT)
    untouched = [house.account(email).refresh_token for email in (BOB, CAT)]

    assert _rotate(_with_both(house)) == KeyRotationReport(rotated=1, unreadable=2, remaining=2)

    assert [house.account(email).refresh_token for email in (BOB, CAT)] == untouched
    reported = [entry["account_id"] for entry in house.logs if entry["event"].startswith("Secret cannot be opened")]
    assert sorted(reported) == sorted(str(house.account(email).id) for email in (BOB, CAT))


def test_what_cannot_be_stored_yet_is_counted(house: House) -> None:
    """It may be sealed under the old key, and comes home some day: that key must not go."""
    house.sign_in(ANN)
    OutboxStore(house.services.redis).put({account_id(ANN): b"of a version to come"})

    assert _rotate(_with_both(house)) == KeyRotationReport(rotated=1, unreadable=0, remaining=0, waiting=1)


def test_without_redis_nobody_knows_what_is_sealed_under_the_old_key(house: House, stores: Stack) -> None:
    """So it is not claimed that nothing is."""
    house.sign_in(ANN)
    stores.valkey.stop()

    with pytest.raises(Unavailable):
        _rotate(_with_both(house))


def test_refreshes_go_on_while_keys_are_rotated(house: House) -> None:
    """Neither undoes the other: a refresh token replaced meanwhile must not come back, nor a new one be lost.

    Microsoft is strict here: whoever spends a refresh token twice has lost the account.
    """
    house.enrol(ANN, strict=True)
    house.services.refresher.refresh_due()
    both, rotated = _with_both(house), 0
    # It still seals under the old key, so that there is always something to rotate.
    old_first = house.another(encryption_keys=SecretStr(f"{house.settings.encryption_keys.get_secret_value()},{_NEW}"))

    def refresh() -> None:
        for _ in range(80):
            old_first.on_demand.refresh(account_id(ANN))

    with ThreadPoolExecutor(1) as pool:
        refreshing = pool.submit(refresh)
        while not refreshing.done():
            rotated += _rotate(both).rotated
    refreshing.result()

    rotated += _rotate(both).rotated
    assert rotated > 10
    house.clock.advance(hours=2)
    assert _with_new(house).refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert house.emulator.statistics().failures == 0
    assert _rotate(both).remaining == 0


def test_a_rolling_restart_with_a_new_key_costs_no_account(house: House) -> None:
    """For some minutes there are processes that do not know the new key yet, and what it seals is not lost."""
    house.enrol(ANN)
    _with_both(house).refresher.refresh_due()
    house.clock.advance(hours=2)

    house.services.refresher.refresh_due()

    house.clock.advance(hours=1)
    _with_both(house).refresher.refresh_due()
    assert house.account().status is Status.ACTIVE
    assert house.account().version == 3


def test_a_refresh_in_flight_survives_a_rotation(house: House) -> None:
    """Re-sealing is no change of the account: the answer on its way is not dropped for it."""
    house.enrol(ANN, strict=True)

    with house.in_flight(house.services.refresher.refresh_due) as refresh:
        assert _rotate(_with_both(house)).rotated == 1

    assert refresh.result() == {"claimed": 1, "refreshed": 1}
    house.clock.advance(hours=2)
    assert _with_both(house).refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_fingerprints_still_match_in_the_ledger_under_one_key(house: House) -> None:
    """They are made with the newest key: a rotation starts a new chain, and says which key it is of."""
    house.enrol(ANN)
    house.services.refresher.refresh_due()
    house.clock.advance(hours=2)
    _with_both(house).refresher.refresh_due()

    newest, oldest = house.services.events.latest(house.account().id)
    assert oldest["fingerprint_after"].startswith("k1:")
    assert newest["fingerprint_before"].startswith("k2:")
