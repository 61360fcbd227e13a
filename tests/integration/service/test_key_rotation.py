"""A new key while everything runs: each value is re-sealed, none is lost, and the old key can be removed."""

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
    """A process with the new key in front of the old one."""
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
    """A process without the old key serves, refreshes and uses every token, without the help of the cache."""
    installation.sign_in(ANN, BOB, due=True, strict=True)
    installation.refresh_due()
    installation.sign_in(CAT)

    assert _rotate(_with_both(installation)) == KeyRotationReport(rotated=3, unreadable=0, remaining=0)

    new = _with_new(installation)
    installation.services.redis.flushall()
    assert [new.tokens.get(email).email for email in (ANN, BOB, CAT)] == [ANN, BOB, CAT]
    installation.clock.advance(hours=2)
    assert new.refresher.refresh_due() == {"leased": 3, "refreshed": 3}
    assert installation.emulator.statistics().failures == 0


def test_before_a_rotation_the_old_key_is_needed(installation: Installation) -> None:
    """The counter-proof: a process with only the new key cannot open values that were not re-sealed."""
    installation.sign_in(ANN)
    installation.services.redis.flushall()

    with pytest.raises(UnreadableSecret):
        _with_new(installation).tokens.get(ANN)


def test_an_entry_in_redis_under_the_old_key_is_a_miss(installation: Installation) -> None:
    """The cache is not re-sealed. A process that cannot open an entry writes a new one."""
    installation.sign_in(ANN)
    before = installation.services.tokens.get(ANN)
    _rotate(_with_both(installation))
    new = _with_new(installation)

    assert new.tokens.get(ANN) == before
    with counting.statements() as statements:
        assert new.tokens.get(ANN) == before
    assert statements == []


def test_a_second_rotation_finds_nothing(installation: Installation) -> None:
    """A second rotation finds nothing, and neither does one without a new key."""
    installation.sign_in(ANN)
    both = _with_both(installation)

    assert _rotate(installation.services) == KeyRotationReport(0, 0, 0)
    assert _rotate(both) == KeyRotationReport(1, 0, 0)
    assert _rotate(both) == KeyRotationReport(0, 0, 0)


def test_a_rotation_covers_every_page_and_reports_progress(installation: Installation) -> None:
    """A million rows take a while, and the operator must see progress."""
    _store(installation, *_emails(1001))
    steps = list[int]()

    report = _rotate(_with_both(installation), steps.append)

    assert report == KeyRotationReport(rotated=1001, unreadable=0, remaining=0)
    assert steps == [*range(100, 1001, 100), 1001]


def test_an_interrupted_rotation_continues_where_it_stopped(installation: Installation) -> None:
    """Each page is committed by itself."""
    _store(installation, *_emails(1001))
    both = _with_both(installation)

    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _rotate(both, interrupt)

    assert _rotate(both) == KeyRotationReport(rotated=901, unreadable=0, remaining=0)


def test_a_check_finds_missing_keys_and_damaged_values(installation: Installation) -> None:
    """An operator with the wrong keys must learn it before a refresh is due."""
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
    installation.services.key_rotation.check()  # `status` reports it


def test_a_token_that_no_key_opens_is_counted_and_left_as_it_is(installation: Installation) -> None:
    """Its key may be found in an old backup. Until then the old keys must stay, and the report says so."""
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
    """It may be sealed under the old key and is delivered later, so that key must not be removed."""
    installation.sign_in(ANN)
    installation.services.outbox.add([pending(account_id(BOB))])

    assert _rotate(_with_both(installation)) == KeyRotationReport(rotated=1, unreadable=0, remaining=0, waiting=1)


def test_without_redis_the_entries_under_the_old_key_are_unknown(installation: Installation, stores: Stack) -> None:
    """The report must not say that there are none."""
    installation.sign_in(ANN)
    stores.valkey.stop()

    with pytest.raises(Unavailable):
        _rotate(_with_both(installation))


def test_refreshes_go_on_while_keys_are_rotated(installation: Installation) -> None:
    """A refresh token that is replaced meanwhile must not be restored, and a new one must not be lost.

    Microsoft is strict here: a second use of a refresh token ends the grant.
    """
    installation.sign_in(ANN, due=True, strict=True)
    installation.refresh_due()
    both, rotated = _with_both(installation), 0
    # It still seals under the old key, so that the rotation always has work to do.
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
    assert _with_new(installation).refresher.refresh_due() == {"leased": 1, "refreshed": 1}
    assert installation.emulator.statistics().failures == 0
    assert _rotate(both).remaining == 0


def test_a_rolling_restart_with_a_new_key_costs_no_account(installation: Installation) -> None:
    """For some minutes some processes lack the new key. No value that it seals is lost."""
    installation.sign_in(ANN, due=True)
    _with_both(installation).refresher.refresh_due()
    installation.clock.advance(hours=2)

    installation.refresh_due()

    installation.clock.advance(hours=1)
    _with_both(installation).refresher.refresh_due()
    assert installation.account().status is Status.ACTIVE
    assert installation.account().version == 3


def test_a_refresh_in_flight_survives_a_rotation(installation: Installation) -> None:
    """Re-sealing does not change the account, so the result in flight must not be dropped."""
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(installation.refresh_due) as refresh:
        assert _rotate(_with_both(installation)).rotated == 1

    assert refresh.result() == {"leased": 1, "refreshed": 1}
    installation.clock.advance(hours=2)
    assert _with_both(installation).refresher.refresh_due() == {"leased": 1, "refreshed": 1}


def test_fingerprints_of_events_match_under_one_key(installation: Installation) -> None:
    """The newest key makes them. A rotation starts a new chain, and each fingerprint names its key."""
    installation.sign_in(ANN, due=True)
    installation.services.on_demand.refresh_now(account_id(ANN))
    _with_both(installation).on_demand.refresh_now(account_id(ANN))

    newest, oldest = installation.services.events.latest(installation.account().id)
    assert oldest["fingerprint_after"].startswith("k1:")
    assert newest["fingerprint_before"].startswith("k2:")
