"""A new key, while everything runs: each value is re-sealed, none is lost, and the old key can go."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from pydantic import SecretStr

from tests.constants import ANN, BOB, CAT
from tests.integration import counting
from tests.integration.installation import Installation
from tests.integration.outboxes import pending
from worker.bootstrap import Services
from worker.devkit.stack import Stack
from worker.domain.account import Grant, Status, account_id
from worker.domain.errors import ConfigurationError, Unavailable, UnreadableSecret
from worker.domain.token import Secret
from worker.service.accounts.key_rotation import KeyRotationReport
from worker.vault import generate_key

_NEW = generate_key("k2")


def _with_both(installation: Installation) -> Services:
    """A process that has been given the new key, with the old one behind it."""
    return installation.another_process(
        encryption_keys=SecretStr(f"{_NEW},{installation.settings.encryption_keys.get_secret_value()}")
    )


def _with_new(installation: Installation) -> Services:
    return installation.another_process(encryption_keys=SecretStr(_NEW))


def _rotate(services: Services, progress: Callable[[int], None] = lambda _: None) -> KeyRotationReport:
    return services.key_rotation.rotate(progress=progress)


def _emails(count: int) -> list[str]:
    return [f"user{number:04}@contoso.com" for number in range(count)]


def _store(installation: Installation, *emails: str) -> None:
    installation.services.accounts.save([Grant(email=email, refresh_token=Secret(f"of {email}")) for email in emails])


def test_after_a_rotation_the_old_key_can_go(installation: Installation) -> None:
    """A process that never saw the old key serves, refreshes and spends every token, without the cache's help."""
    installation.sign_in(ANN, BOB, due=True, strict=True)
    installation.refresh_due()
    installation.sign_in(CAT)

    assert _rotate(_with_both(installation)) == KeyRotationReport(rotated=3, unreadable=0, remaining=0)

    new = _with_new(installation)
    installation.services.redis.flushall()
    assert [new.tokens.get(email).email for email in (ANN, BOB, CAT)] == [ANN, BOB, CAT]
    installation.clock.advance(hours=2)
    assert new.refresher.refresh_due() == {"claimed": 3, "refreshed": 3}
    assert installation.emulator.statistics().failures == 0


def test_before_a_rotation_the_old_key_is_needed(installation: Installation) -> None:
    """The counter-proof: what is not re-sealed is lost to who has only the new key."""
    installation.sign_in(ANN)
    installation.services.redis.flushall()

    with pytest.raises(UnreadableSecret):
        _with_new(installation).tokens.get(ANN)


def test_an_entry_in_redis_under_the_old_key_is_a_miss(installation: Installation) -> None:
    """The cache is not re-sealed: who cannot open an entry writes a new one."""
    installation.sign_in(ANN)
    before = installation.services.tokens.get(ANN)
    _rotate(_with_both(installation))
    new = _with_new(installation)

    assert new.tokens.get(ANN) == before
    with counting.statements() as statements:
        assert new.tokens.get(ANN) == before
    assert statements == []


def test_a_rotation_done_is_done(installation: Installation) -> None:
    """Run again, it finds nothing; run without a new key, neither."""
    installation.sign_in(ANN)
    both = _with_both(installation)

    assert _rotate(installation.services) == KeyRotationReport(0, 0, 0)
    assert _rotate(both) == KeyRotationReport(1, 0, 0)
    assert _rotate(both) == KeyRotationReport(0, 0, 0)


def test_a_rotation_goes_through_every_page_and_says_how_far_it_is(installation: Installation) -> None:
    """A million rows take a while; whoever waits wants to see that it moves."""
    _store(installation, *_emails(1001))
    steps = list[int]()

    report = _rotate(_with_both(installation), steps.append)

    assert report == KeyRotationReport(rotated=1001, unreadable=0, remaining=0)
    assert steps == [*range(100, 1001, 100), 1001]


def test_an_interrupted_rotation_goes_on_where_it_stopped(installation: Installation) -> None:
    """What is done is done: it is committed page by page."""
    _store(installation, *_emails(1001))
    both = _with_both(installation)

    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _rotate(both, interrupt)

    assert _rotate(both) == KeyRotationReport(rotated=901, unreadable=0, remaining=0)


def test_a_check_finds_a_key_that_is_missing_and_a_value_that_is_damaged(installation: Installation) -> None:
    """Whoever deploys with the wrong keys wants to know before a refresh is due."""
    installation.sign_in(ANN, BOB, due=True)
    installation.services.accounts.disconnect(BOB)
    installation.services.key_rotation.check()

    with pytest.raises(ConfigurationError, match="'k1', which is not in WORKER_ENCRYPTION_KEYS"):
        _with_new(installation).key_rotation.check()

    installation.query(
        "UPDATE mail_credentials SET refresh_token = refresh_token || '\\x00' WHERE email = :email", email=ANN
    )
    with pytest.raises(ConfigurationError, match=str(account_id(ANN))):
        installation.services.key_rotation.check()

    installation.refresh_due()
    assert installation.account().status is Status.UNREADABLE
    installation.services.key_rotation.check()  # `status` tells of it


def test_a_token_that_no_key_opens_is_counted_and_left_as_it_is(installation: Installation) -> None:
    """Its key may be found in an old backup; until then the old ones must stay, and the report says so."""
    installation.sign_in(ANN, BOB, CAT, due=True)
    lost = installation.another_process(encryption_keys=SecretStr(generate_key("lost")))
    lost.accounts.save([installation.grant(BOB)])
    installation.query("UPDATE mail_credentials SET refresh_token = '\\x00' WHERE email = :email", email=CAT)
    untouched = [installation.account(email).refresh_token for email in (BOB, CAT)]

    assert _rotate(_with_both(installation)) == KeyRotationReport(rotated=1, unreadable=2, remaining=2)

    assert [installation.account(email).refresh_token for email in (BOB, CAT)] == untouched
    reported = [
        entry["account_id"] for entry in installation.logs if entry["event"].startswith("Secret cannot be opened")
    ]
    assert sorted(reported) == sorted(str(installation.account(email).id) for email in (BOB, CAT))


def test_a_result_that_waits_in_the_outbox_is_counted(installation: Installation) -> None:
    """It may be sealed under the old key, and comes home some day: that key must not go."""
    installation.sign_in(ANN)
    installation.services.outbox.add([pending(account_id(BOB))])

    assert _rotate(_with_both(installation)) == KeyRotationReport(rotated=1, unreadable=0, remaining=0, waiting=1)


def test_without_redis_the_entries_under_the_old_key_are_unknown(installation: Installation, stores: Stack) -> None:
    """So it is not claimed that nothing is."""
    installation.sign_in(ANN)
    stores.valkey.stop()

    with pytest.raises(Unavailable):
        _rotate(_with_both(installation))


def test_refreshes_go_on_while_keys_are_rotated(installation: Installation) -> None:
    """Neither undoes the other: a refresh token replaced meanwhile must not come back, nor a new one be lost.

    Microsoft is strict here: whoever spends a refresh token twice has lost the account.
    """
    installation.sign_in(ANN, due=True, strict=True)
    installation.refresh_due()
    both, rotated = _with_both(installation), 0
    # It still seals under the old key, so that there is always something to rotate.
    old_first = installation.another_process(
        encryption_keys=SecretStr(f"{installation.settings.encryption_keys.get_secret_value()},{_NEW}")
    )

    stopped = Event()

    def refresh() -> None:
        while not stopped.is_set():
            old_first.on_demand.refresh_now(account_id(ANN))

    with ThreadPoolExecutor(1) as pool:
        refreshing = pool.submit(refresh)
        while rotated <= 10 and not refreshing.done():
            rotated += _rotate(both).rotated
        stopped.set()
    refreshing.result()

    _rotate(both)
    assert rotated > 10
    installation.clock.advance(hours=2)
    assert _with_new(installation).refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
    assert installation.emulator.statistics().failures == 0
    assert _rotate(both).remaining == 0


def test_a_rolling_restart_with_a_new_key_costs_no_account(installation: Installation) -> None:
    """For some minutes there are processes that do not know the new key yet, and what it seals is not lost."""
    installation.sign_in(ANN, due=True)
    _with_both(installation).refresher.refresh_due()
    installation.clock.advance(hours=2)

    installation.refresh_due()

    installation.clock.advance(hours=1)
    _with_both(installation).refresher.refresh_due()
    assert installation.account().status is Status.ACTIVE
    assert installation.account().version == 3


def test_a_refresh_in_flight_survives_a_rotation(installation: Installation) -> None:
    """Re-sealing is no change of the account: the answer on its way is not dropped for it."""
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(installation.refresh_due) as refresh:
        assert _rotate(_with_both(installation)).rotated == 1

    assert refresh.result() == {"claimed": 1, "refreshed": 1}
    installation.clock.advance(hours=2)
    assert _with_both(installation).refresher.refresh_due() == {"claimed": 1, "refreshed": 1}


def test_fingerprints_still_match_in_the_ledger_under_one_key(installation: Installation) -> None:
    """They are made with the newest key: a rotation starts a new chain, and says which key it is of."""
    installation.sign_in(ANN, due=True)
    installation.refresh_due()
    installation.clock.advance(hours=2)
    _with_both(installation).refresher.refresh_due()

    newest, oldest = installation.services.events.latest(installation.account().id)
    assert oldest["fingerprint_after"].startswith("k1:")
    assert newest["fingerprint_before"].startswith("k2:")
