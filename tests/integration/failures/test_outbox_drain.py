"""Postgres refuses a row, or more: the others are stored, this one waits in the outbox, and no token is lost.

Microsoft is strict here: whoever spends a refresh token twice has lost the account.
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
    """From now on Postgres refuses new tokens of Ann's row, and takes so long for any other's."""
    installation.query(POISONED)
    installation.query(
        f"CREATE TRIGGER refusing BEFORE UPDATE ON mail_credentials FOR EACH ROW EXECUTE FUNCTION refuse({seconds})"
    )


def cure(installation: Installation) -> None:
    installation.query("DROP TRIGGER refusing ON mail_credentials")


def waiting(installation: Installation) -> set[str]:
    """The ids of those in the outbox."""
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
    """Twenty mailboxes are refreshed, and Postgres takes all but Ann's."""
    installation.sign_in(ANN, *emails(19), due=True, strict=True)
    poison(installation)
    assert installation.refresh_due() == {"claimed": 20, "refreshed": 20}
    return installation


def test_a_row_that_postgres_refuses_does_not_spoil_its_group(installation: Installation) -> None:
    """The answers that have come during a slow commit go into one statement. All are stored but one, which waits where
    nothing expires."""
    installation.sign_in(ANN, *emails(19), due=True, strict=True)
    installation.emulator.add_fault(Hang(0.2), ANN)
    poison(installation, seconds=0.03)

    assert installation.refresh_due() == {"claimed": 20, "refreshed": 20}

    for email in emails(19):
        assert_stored(installation, email, version=2)
    assert installation.account(ANN).version == 1
    assert waiting(installation) == {str(account_id(ANN))}
    assert installation.services.redis.ttl(OUTBOX) == -1


def test_a_token_that_waits_is_served(poisoned: Installation, other_process: Services) -> None:
    """The consumer has no part in Postgres's opinion of the row."""
    assert poisoned.requests_during(lambda: other_process.tokens.get(ANN)) == 0
    assert other_process.tokens.get(ANN).version == 2


def test_an_account_that_waits_is_not_asked_about_again(poisoned: Installation, other_process: Services) -> None:
    """What Postgres has is a spent token: a question with that would end the grant. The others go on."""
    poisoned.clock.advance(hours=2)

    assert other_process.refresher.refresh_due() == {"claimed": 20, "refreshed": 19, "returned": 1}
    poisoned.clock.advance(minutes=5)
    poisoned.refresh_due()

    assert poisoned.emulator.statistics().by_account[ANN].requests == 1
    assert poisoned.emulator.accepts(poisoned.emulator.newest_refresh_token(ANN))


def test_what_waits_comes_home_when_postgres_takes_it(poisoned: Installation, other_process: Services) -> None:
    """By the next sweep of any process, before it claims; and from there the account is like all others."""
    other_process.refresher.refresh_due()
    assert waiting(poisoned) == {str(account_id(ANN))}

    cure(poisoned)
    assert other_process.refresher.refresh_due() == {"claimed": 0}

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)
    poisoned.clock.advance(hours=2)
    assert poisoned.refresh_due() == {"claimed": 20, "refreshed": 20}
    assert_stored(poisoned, ANN, version=3)


def test_the_sweep_brings_home_what_waits(poisoned: Installation, other_process: Services) -> None:
    """Nothing is due and Ann's row is leased until it is stored: no batch comes by to do it."""
    cure(poisoned)

    assert other_process.refresher.batches_due(limit=10) == []

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)


def test_a_consumer_learns_that_the_newest_token_waits(poisoned: Installation, other_process: Services) -> None:
    """The row is refused for longer than a token lives. The stored refresh token is spent, so none is requested."""
    poisoned.clock.advance(hours=2)

    with pytest.raises(BackingOff, match="pending_result"):
        other_process.tokens.get(ANN)

    cure(poisoned)
    assert poisoned.services.tokens.get(ANN).version == 3
    assert_stored(poisoned, ANN, version=3)


def test_a_lease_that_ran_out_meanwhile_is_no_obstacle(poisoned: Installation, other_process: Services) -> None:
    """Somebody has claimed the row since, and gave it back unasked: the token that waits is newer than what he held."""
    poisoned.clock.advance(minutes=3)
    assert other_process.refresher.refresh_due()["returned"] == 1

    cure(poisoned)
    other_process.refresher.refresh_due()

    assert_stored(poisoned, ANN, version=2)


def test_two_processes_that_drain_at_once_store_it_once(poisoned: Installation, other_process: Services) -> None:
    """The second finds a row that has moved on, and drops its copy."""
    [(field, value)] = poisoned.services.redis.hgetall(OUTBOX).items()
    cure(poisoned)
    poisoned.refresh_due()
    poisoned.services.redis.hset(OUTBOX, field, value)

    other_process.refresher.refresh_due()

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)


def test_a_sign_in_while_it_waits_wins(poisoned: Installation) -> None:
    """The trigger is gone, Ann has signed in, and only then somebody drains: her new grant stays."""
    cure(poisoned)
    poisoned.sign_in(ANN, due=True, strict=True)
    granted = poisoned.emulator.newest_refresh_token(ANN)

    assert poisoned.refresh_due() == {"claimed": 1, "refreshed": 1}

    assert waiting(poisoned) == set()
    assert not poisoned.emulator.accepts(granted)  # it is the new one that has been spent
    assert_stored(poisoned, ANN, version=3)


@pytest.mark.parametrize("verbs", [("pause",), ("pause", "resume"), ("resume",)])
def test_an_operator_meanwhile_does_not_end_the_grant(poisoned: Installation, verbs: tuple[str, ...]) -> None:
    """What is stored is as spent as before, and what waits is what there is to go on with. The cache learns it."""
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


def test_values_that_do_not_open_are_set_aside_and_block_no_account(installation: Installation) -> None:
    """A writer to Redis cannot make a worker store anything, nor keep it from an account."""
    victims = emails(len(GARBAGE))
    installation.sign_in(*victims, BOB, due=True)
    store = OutboxStore(installation.services.redis)
    store.put({account_id(email): value for email, value in zip(victims, GARBAGE, strict=True)})

    assert installation.refresh_due() == {"claimed": len(victims) + 1, "refreshed": len(victims) + 1}

    assert kept(store) == {}
    assert installation.services.redis.hlen(f"{OUTBOX}:unreadable") == len(GARBAGE)
    assert installation.services.redis.ttl(f"{OUTBOX}:unreadable") > 0


def test_a_value_under_another_key_waits_for_a_worker_that_has_it(installation: Installation) -> None:
    """Keys are added to one worker after the other. The account itself goes on."""
    installation.sign_in(ANN, due=True)
    store = OutboxStore(installation.services.redis)
    store.put({account_id(ANN): (value := b"\x01\x03new" + bytes(60))})

    assert installation.refresh_due() == {"claimed": 1, "refreshed": 1}

    assert kept(store) == {account_id(ANN): value}


def test_a_value_of_another_account_is_no_value(installation: Installation) -> None:
    """The account is bound to the seal: a writer to Redis cannot move results between accounts."""
    installation.sign_in(ANN, BOB, due=True)
    store = OutboxStore(installation.services.redis)
    installation.services.outbox.add([pending(account_id(ANN))])
    [value] = kept(store).values()
    store.discard({account_id(ANN): value})
    store.put({account_id(BOB): value})

    assert installation.refresh_due() == {"claimed": 2, "refreshed": 2}

    assert installation.account(BOB).version == 2
    assert installation.stored_secret(Purpose.REFRESH_TOKEN, BOB) == installation.emulator.newest_refresh_token(BOB)


def test_rotate_keys_says_that_something_waits(installation: Installation, command: Callable[..., str]) -> None:
    """It may be sealed under the key that is to go."""
    installation.services.outbox.add([pending(account_id(ANN))])

    with pytest.raises(CalledProcessError) as failed:
        command("rotate-keys")

    assert failed.value.returncode == 1
    assert "1 still wait in the outbox" in failed.value.stderr


def test_what_only_somebody_else_held_does_not_count_as_waiting(installation: Installation) -> None:
    """Workers drain as well while keys are rotated: what they held is tried once more at the end."""
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


def test_a_missing_ledger_loses_no_token(installation: Installation, other_process: Services) -> None:
    """Its line is written in the same transaction as the tokens; without the table they wait and come home alone."""
    installation.sign_in(ANN, *emails(5), due=True, strict=True)
    installation.query("ALTER TABLE refresh_events RENAME TO elsewhere")

    assert installation.refresh_due() == {"claimed": 6, "refreshed": 6}
    assert len(waiting(installation)) == 6
    assert other_process.refresher.refresh_due() == {"claimed": 0}

    assert waiting(installation) == set()
    for email in (ANN, *emails(5)):
        assert_stored(installation, email, version=2)
    installation.query("ALTER TABLE elsewhere RENAME TO refresh_events")
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"claimed": 6, "refreshed": 6}
    assert installation.query("SELECT count(*) FROM refresh_events") == [(6,)]


def test_a_row_that_postgres_refuses_does_not_keep_others_waiting(
    installation: Installation, other_process: Services
) -> None:
    """They are stored many at a time, and one of them spoils the statement."""
    installation.sign_in(ANN, *emails(19), due=True, strict=True)
    installation.query("ALTER TABLE refresh_events RENAME TO elsewhere")
    installation.refresh_due()
    assert len(waiting(installation)) == 20
    poison(installation)

    assert other_process.refresher.refresh_due() == {"claimed": 0}

    assert waiting(installation) == {str(account_id(ANN))}
    for email in emails(19):
        assert_stored(installation, email, version=2)


def test_a_failure_that_cannot_be_stored_is_found_again(installation: Installation, clock: TurnedClock) -> None:
    """There is no token to lose: the lease runs out, and the next question gets the same answer."""
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.add_fault(oauth_error("50173"), ANN)
    installation.query("ALTER TABLE refresh_events RENAME TO elsewhere")

    assert installation.refresh_due() == {"claimed": 2, "refreshed": 1}
    assert installation.account(ANN).status is Status.ACTIVE
    installation.query("ALTER TABLE elsewhere RENAME TO refresh_events")
    clock.advance(minutes=3)

    assert installation.refresh_due() == {"claimed": 1, "reauth_required": 1}
    assert installation.account(ANN).status is Status.REAUTH_REQUIRED


def test_who_refreshes_a_row_that_is_refused_gets_the_token(
    installation: Installation, other_process: Services
) -> None:
    """A consumer on demand, an operator by hand: what they get waits like any other, and is in the cache meanwhile."""
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
