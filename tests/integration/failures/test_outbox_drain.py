"""Postgres rejects one or more rows: the other rows are stored, these wait in the outbox, and no token is lost.

Microsoft is strict here: a second use of a refresh token ends the grant.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from subprocess import CalledProcessError

import pytest

from tests.constants import ANN, BOB
from tests.factories import TurnedClock, emails
from tests.integration.installation import Installation
from tests.integration.outboxes import GARBAGE, kept, pending
from tests.waiting import wait_for
from worker.bootstrap import Services
from worker.cache import OutboxStore
from worker.db import leases
from worker.devkit.emulator import Hang, oauth_error
from worker.domain.account import Status, account_id
from worker.domain.errors import BackingOff
from worker.domain.token import Sealed, as_text
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault

OUTBOX = "token-worker:outbox"
POISONED = f"""
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.email = '{ANN}' AND new.version > old.version THEN RAISE check_violation; END IF;
        IF new.version > old.version THEN PERFORM pg_sleep(TG_ARGV[0]::float); END IF;
        RETURN new;
    END $$
"""


def poison(installation: Installation, *, seconds: float = 0.0) -> None:
    """From now on Postgres rejects new tokens in Ann's row, and needs ``seconds`` for any other row."""
    installation.query(POISONED)
    installation.query(
        f"CREATE TRIGGER refusing BEFORE UPDATE ON mail_credentials FOR EACH ROW EXECUTE FUNCTION refuse({seconds})"
    )


def cure(installation: Installation) -> None:
    installation.query("DROP TRIGGER refusing ON mail_credentials")


def waiting(installation: Installation) -> set[str]:
    """The ids of the accounts in the outbox."""
    return {str(account) for account in kept(OutboxStore(installation.services.redis))}


def assert_stored(installation: Installation, email: str, version: int) -> None:
    account = installation.account(email)
    assert (account.version, account.status, account.failure, account.lease_until) == (
        version,
        Status.ACTIVE,
        None,
        None,
    )
    newest = installation.emulator.newest_refresh_token(email)
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, email) == newest
    assert installation.emulator.accepts(newest)


@pytest.fixture(name="poisoned")
def _poisoned(installation: Installation) -> Installation:
    """Twenty mailboxes are refreshed, and Postgres stores all but Ann's."""
    installation.sign_in(ANN, *emails(19), due=True, strict=True)
    poison(installation)
    assert installation.refresh_due() == {"leased": 20, "refreshed": 20}
    return installation


def test_a_row_that_postgres_rejects_does_not_affect_its_group(installation: Installation) -> None:
    """Results that arrive during a slow commit go into one statement. All are stored but one.

    That one waits in the outbox, where nothing expires.
    """
    installation.sign_in(ANN, *emails(19), due=True, strict=True)
    installation.emulator.add_fault(Hang(0.2), ANN)
    poison(installation, seconds=0.03)

    assert installation.refresh_due() == {"leased": 20, "refreshed": 20}

    for email in emails(19):
        assert_stored(installation, email, version=2)
    assert installation.account(ANN).version == 1
    assert waiting(installation) == {str(account_id(ANN))}
    assert installation.services.redis.ttl(OUTBOX) == -1


def test_a_token_in_the_outbox_is_served(poisoned: Installation, other_process: Services) -> None:
    """Whether Postgres rejects the row does not matter to the consumer."""
    assert poisoned.requests_during(lambda: other_process.tokens.get(ANN)) == 0
    assert other_process.tokens.get(ANN).version == 2


def test_no_request_is_sent_for_an_account_in_the_outbox(poisoned: Installation, other_process: Services) -> None:
    """Postgres holds a used refresh token, and a request with it would end the grant.

    The other accounts are refreshed.
    """
    poisoned.clock.advance(hours=2)

    assert other_process.refresher.refresh_due() == {"leased": 19, "refreshed": 19}
    poisoned.clock.advance(minutes=5)
    poisoned.refresh_due()

    assert poisoned.emulator.statistics().by_account[ANN].requests == 1
    assert poisoned.emulator.accepts(poisoned.emulator.newest_refresh_token(ANN))


def test_a_pending_result_is_stored_once_postgres_accepts_it(poisoned: Installation, other_process: Services) -> None:
    """The next sweep of any process delivers it before it leases accounts.

    From then on the account is like all others.
    """
    other_process.refresher.refresh_due()
    assert waiting(poisoned) == {str(account_id(ANN))}

    cure(poisoned)
    assert other_process.refresher.refresh_due() == {"leased": 0}

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)
    poisoned.clock.advance(hours=2)
    assert poisoned.refresh_due() == {"leased": 20, "refreshed": 20}
    assert_stored(poisoned, ANN, version=3)


def test_the_sweep_delivers_pending_results(poisoned: Installation, other_process: Services) -> None:
    """Nothing is due and Ann's row is leased until it is stored, so no batch would deliver the result."""
    cure(poisoned)

    assert other_process.refresher.batches_due(limit=10) == []

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)


def test_the_error_says_that_the_newest_token_waits(poisoned: Installation, other_process: Services) -> None:
    """The row is rejected for longer than a token lives. The stored refresh token is used up, so no request is sent."""
    poisoned.clock.advance(hours=2)

    with pytest.raises(BackingOff, match="pending_result"):
        other_process.tokens.get(ANN)

    cure(poisoned)
    assert poisoned.services.tokens.get(ANN).version == 3
    assert_stored(poisoned, ANN, version=3)


def test_a_pending_result_is_stored_after_its_lease_has_expired(
    poisoned: Installation, other_process: Services
) -> None:
    """Another worker has leased the row since and released it without a request, so the waiting token is newer than its
    own."""
    poisoned.clock.advance(minutes=3)
    assert other_process.refresher.refresh_due() == {"leased": 0}

    cure(poisoned)
    other_process.refresher.refresh_due()

    assert_stored(poisoned, ANN, version=2)


def test_two_processes_that_drain_at_once_store_it_once(poisoned: Installation, other_process: Services) -> None:
    """The second process finds that the row has changed, and drops its copy."""
    [(field, value)] = poisoned.services.redis.hgetall(OUTBOX).items()
    cure(poisoned)
    poisoned.refresh_due()
    poisoned.services.redis.hset(OUTBOX, field, value)

    other_process.refresher.refresh_due()

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)


def test_a_sign_in_while_it_waits_wins(poisoned: Installation) -> None:
    """The trigger is gone and Ann has signed in before the outbox is drained, so her new grant stays."""
    cure(poisoned)
    poisoned.sign_in(ANN, due=True, strict=True)
    granted = poisoned.emulator.newest_refresh_token(ANN)

    assert poisoned.refresh_due() == {"leased": 1, "refreshed": 1}

    assert waiting(poisoned) == set()
    assert not poisoned.emulator.accepts(granted)  # the new one has been used
    assert_stored(poisoned, ANN, version=3)


@pytest.mark.parametrize("verbs", [("pause",), ("pause", "resume"), ("resume",)])
def test_an_operators_command_does_not_end_the_grant(poisoned: Installation, verbs: tuple[str, ...]) -> None:
    """The stored token is still the used one, so the waiting result is stored, and the cache is updated."""
    cure(poisoned)
    for verb in verbs:
        getattr(poisoned.services.accounts, verb)(ANN)
    status = poisoned.account(ANN).status

    poisoned.services.refresher.batches_due(limit=1)

    account = poisoned.account(ANN)
    assert waiting(poisoned) == set()
    assert account.status is status
    newest = poisoned.emulator.newest_refresh_token(ANN)
    assert poisoned.stored_secret(Purpose.REFRESH_TOKEN, ANN) == newest
    assert poisoned.emulator.accepts(newest)
    entry = TokenCache(poisoned.services.cache, Vault(poisoned.settings.keys)).read(account.id)
    assert entry
    assert (entry.version, entry.refresh_token) == (account.version, as_text(account.refresh_token or Sealed(b"")))
    poisoned.services.accounts.resume(ANN)
    assert poisoned.services.on_demand.refresh_now(account.id).version == poisoned.account(ANN).version
    assert poisoned.emulator.accepts(poisoned.emulator.newest_refresh_token(ANN))


def test_values_that_cannot_be_opened_are_set_aside_and_block_no_account(installation: Installation) -> None:
    """A writer to Redis can neither make a worker store a value nor block an account."""
    victims = emails(len(GARBAGE))
    installation.sign_in(*victims, BOB, due=True)
    store = OutboxStore(installation.services.redis)
    store.put({account_id(email): value for email, value in zip(victims, GARBAGE, strict=True)})

    assert installation.refresh_due() == {"leased": len(victims) + 1, "refreshed": len(victims) + 1}

    assert kept(store) == {}
    assert installation.services.redis.hlen(f"{OUTBOX}:unreadable") == len(GARBAGE)
    assert installation.services.redis.ttl(f"{OUTBOX}:unreadable") > 0


def test_a_value_under_another_key_waits_for_a_worker_with_that_key(installation: Installation) -> None:
    """A new key reaches one worker after the other. The account itself is refreshed."""
    installation.sign_in(ANN, due=True)
    store = OutboxStore(installation.services.redis)
    store.put({account_id(ANN): (value := b"\x01\x03new" + bytes(60))})

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    assert kept(store) == {account_id(ANN): value}


def test_a_value_of_another_account_is_ignored(installation: Installation) -> None:
    """The seal is bound to the account, so a writer to Redis cannot move results between accounts."""
    installation.sign_in(ANN, BOB, due=True)
    store = OutboxStore(installation.services.redis)
    installation.services.outbox.add([pending(account_id(ANN))])
    [value] = kept(store).values()
    store.discard({account_id(ANN): value})
    store.put({account_id(BOB): value})

    assert installation.refresh_due() == {"leased": 2, "refreshed": 2}

    assert installation.account(BOB).version == 2
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, BOB) == installation.emulator.newest_refresh_token(BOB)


def test_rotate_keys_reports_pending_results(installation: Installation, command: Callable[..., str]) -> None:
    """The pending result may be sealed under the key that is to be removed."""
    installation.services.outbox.add([pending(account_id(ANN))])

    with pytest.raises(CalledProcessError) as failed:
        command("rotate-keys")

    assert failed.value.returncode == 1
    assert "1 still wait in the outbox" in failed.value.stderr


def test_a_result_that_another_process_had_locked_does_not_count_as_pending(installation: Installation) -> None:
    """Workers drain the outbox while keys are rotated. Results that they had locked are tried once more at the end."""
    held, other = map(account_id, emails(2))
    installation.sign_in(*emails(2), due=True)
    installation.services.outbox.add([pending(held), pending(other)])
    poison(installation, seconds=0.5)
    storing = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"

    with ThreadPoolExecutor(1) as pool:
        with installation.services.database.begin() as other_process:
            assert leases.lock(other_process, [held]) == {held}
            drain = pool.submit(installation.services.outbox.deliver_all)
            wait_for(lambda: installation.query(storing), about="the other to be stored")
        assert drain.result() == 0

    assert {account.version for account in installation.accounts()} == {2}


def test_a_missing_table_of_events_loses_no_token(installation: Installation, other_process: Services) -> None:
    """The event is written in the same transaction as the tokens.

    Without its table the tokens wait and are stored without it.
    """
    installation.sign_in(ANN, *emails(5), due=True, strict=True)
    installation.query("ALTER TABLE refresh_successes RENAME TO elsewhere")

    assert installation.refresh_due() == {"leased": 6, "refreshed": 6}
    assert len(waiting(installation)) == 6
    assert other_process.refresher.refresh_due() == {"leased": 0}

    assert waiting(installation) == set()
    for email in (ANN, *emails(5)):
        assert_stored(installation, email, version=2)
    installation.query("ALTER TABLE elsewhere RENAME TO refresh_successes")
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 6, "refreshed": 6}
    assert installation.query("SELECT sum(cardinality(refreshes)) FROM refresh_successes") == [(6,)]


def test_a_row_that_postgres_rejects_does_not_delay_others(installation: Installation, other_process: Services) -> None:
    """Many results are stored at a time, and one of them makes the statement fail."""
    installation.sign_in(ANN, *emails(19), due=True, strict=True)
    installation.query("ALTER TABLE refresh_successes RENAME TO elsewhere")
    installation.refresh_due()
    assert len(waiting(installation)) == 20
    poison(installation)

    assert other_process.refresher.refresh_due() == {"leased": 0}

    assert waiting(installation) == {str(account_id(ANN))}
    for email in emails(19):
        assert_stored(installation, email, version=2)


def test_a_failure_that_cannot_be_stored_is_requested_again(installation: Installation, clock: TurnedClock) -> None:
    """No token is at stake. The lease expires, and the next request gets the same response."""
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.add_fault(oauth_error("50173"), ANN)
    installation.query("ALTER TABLE refresh_events RENAME TO elsewhere")

    assert installation.refresh_due() == {"leased": 2, "refreshed": 1}
    assert installation.account(ANN).status is Status.ACTIVE
    installation.query("ALTER TABLE elsewhere RENAME TO refresh_events")
    clock.advance(minutes=3)

    assert installation.refresh_due() == {"leased": 1, "reauth_required": 1}
    assert installation.account(ANN).status is Status.REAUTH_REQUIRED


def test_the_caller_gets_the_token_although_postgres_rejects_it(
    installation: Installation, other_process: Services
) -> None:
    """The result of a consumer or an operator waits like any other, and is in the cache meanwhile."""
    installation.sign_in(ANN, due=True, strict=True)
    poison(installation)

    token = installation.services.tokens.get(ANN)

    assert token.version == 2
    assert waiting(installation) == {str(account_id(ANN))}
    cure(installation)
    installation.refresh_due()
    assert_stored(installation, ANN, version=2)
    poison(installation)
    assert other_process.on_demand.refresh_now(account_id(ANN)).version == 3
    cure(installation)
    installation.refresh_due()
    assert_stored(installation, ANN, version=3)
