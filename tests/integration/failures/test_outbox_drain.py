"""Postgres refuses a row, or more: the others are stored, this one waits in the outbox, and no token is lost.

Microsoft is strict here: whoever spends a refresh token twice has lost the account.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from subprocess import CalledProcessError

import pytest

from tests.e2e.installation import wait_for
from tests.factories import NOW, TurnedClock
from tests.integration.failures.mailboxes import ANN, BOB, Mailboxes, emails
from tests.integration.outboxes import ENTRY, kept
from worker.bootstrap import Services
from worker.cache import OutboxStore
from worker.db import late_writes
from worker.devkit.emulator import Hang, oauth_error
from worker.domain.account import Status, account_id
from worker.service.tokens.cache import TokenCache
from worker.vault import Vault

OUTBOX = "token-worker:outbox"
POISONED = f"""
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.email = '{ANN}' AND new.version > old.version THEN RAISE check_violation; END IF;
        IF new.version > old.version THEN PERFORM pg_sleep(TG_ARGV[0]::float); END IF;
        RETURN new;
    END $$
"""


def poison(mailboxes: Mailboxes, *, seconds: float = 0.0) -> None:
    """From now on Postgres refuses new tokens of Ann's row, and takes so long for any other's."""
    mailboxes.query(POISONED)
    mailboxes.query(
        f"CREATE TRIGGER refusing BEFORE UPDATE ON mail_credentials FOR EACH ROW EXECUTE FUNCTION refuse({seconds})"
    )


def cure(mailboxes: Mailboxes) -> None:
    mailboxes.query("DROP TRIGGER refusing ON mail_credentials")


def waiting(mailboxes: Mailboxes) -> set[str]:
    """The ids of those in the outbox."""
    return {str(account) for account in kept(OutboxStore(mailboxes.services.redis))}


def assert_stored(mailboxes: Mailboxes, email: str, version: int) -> None:
    account = mailboxes.account(email)
    assert (account.version, account.status, account.failure, account.lease_until) == (
        version,
        Status.ACTIVE,
        None,
        None,
    )
    newest = mailboxes.emulator.newest_refresh_token(email)
    assert mailboxes.stored_refresh_token(email) == newest
    assert mailboxes.emulator.accepts(newest)


@pytest.fixture(name="poisoned")
def _poisoned(mailboxes: Mailboxes) -> Mailboxes:
    """Twenty mailboxes are refreshed, and Postgres takes all but Ann's."""
    mailboxes.sign_in(ANN, *emails(19), strict=True)
    poison(mailboxes)
    assert mailboxes.refresh_due() == {"claimed": 20, "refreshed": 20}
    return mailboxes


def test_a_row_that_postgres_refuses_does_not_spoil_its_group(mailboxes: Mailboxes) -> None:
    """The answers that have come during a slow commit go into one statement. All are stored but one, which waits where
    nothing expires."""
    mailboxes.sign_in(ANN, *emails(19), strict=True)
    mailboxes.emulator.add_fault(Hang(0.2), ANN)
    poison(mailboxes, seconds=0.03)

    assert mailboxes.refresh_due() == {"claimed": 20, "refreshed": 20}

    for email in emails(19):
        assert_stored(mailboxes, email, version=2)
    assert mailboxes.account(ANN).version == 1
    assert waiting(mailboxes) == {str(account_id(ANN))}
    assert mailboxes.services.redis.ttl(OUTBOX) == -1


def test_a_token_that_waits_is_served(poisoned: Mailboxes, rival: Services) -> None:
    """The consumer has no part in Postgres's opinion of the row."""
    assert poisoned.asked(lambda: rival.tokens.get(ANN)) == 0
    assert rival.tokens.get(ANN).version == 2


def test_an_account_that_waits_is_not_asked_about_again(poisoned: Mailboxes, rival: Services) -> None:
    """What Postgres has is a spent token: a question with that would end the grant. The others go on."""
    poisoned.clock.advance(hours=2)

    assert rival.refresher.refresh_due("default") == {"claimed": 20, "refreshed": 19, "returned": 1}
    poisoned.clock.advance(minutes=5)
    poisoned.refresh_due()

    assert poisoned.emulator.statistics().by_account[ANN].requests == 1
    assert poisoned.emulator.accepts(poisoned.emulator.newest_refresh_token(ANN))


def test_what_waits_comes_home_when_postgres_takes_it(poisoned: Mailboxes, rival: Services) -> None:
    """By the next sweep of any process, before it claims; and from there the account is like all others."""
    rival.refresher.refresh_due("default")
    assert waiting(poisoned) == {str(account_id(ANN))}

    cure(poisoned)
    assert rival.refresher.refresh_due("default") == {"claimed": 0}

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)
    poisoned.clock.advance(hours=2)
    assert poisoned.refresh_due() == {"claimed": 20, "refreshed": 20}
    assert_stored(poisoned, ANN, version=3)


def test_the_sweep_brings_home_what_waits(poisoned: Mailboxes, rival: Services) -> None:
    """Nothing is due and Ann's row is leased until it is stored: no batch comes by to do it."""
    cure(poisoned)

    assert rival.refresher.batches_due(at_most=10) == []

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)


def test_who_waits_for_postgres_gets_new_tokens_from_the_cache(poisoned: Mailboxes, rival: Services) -> None:
    """Her row is refused for longer than a token lives. What the cache holds is newer than what Postgres has, so it is
    that which is spent; and all of it comes home in the end."""
    for version in (3, 4):
        poisoned.clock.advance(hours=2)
        assert rival.tokens.get(ANN).version == version
        assert rival.refresher.refresh_due("default")["returned"] == 1

    cure(poisoned)
    rival.refresher.batches_due(at_most=10)

    assert_stored(poisoned, ANN, version=4)


def test_a_lease_that_ran_out_meanwhile_is_no_obstacle(poisoned: Mailboxes, rival: Services) -> None:
    """Somebody has claimed the row since, and gave it back unasked: the token that waits is newer than what he held."""
    poisoned.clock.advance(minutes=3)
    assert rival.refresher.refresh_due("default")["returned"] == 1

    cure(poisoned)
    rival.refresher.refresh_due("default")

    assert_stored(poisoned, ANN, version=2)


def test_two_processes_that_drain_at_once_store_it_once(poisoned: Mailboxes, rival: Services) -> None:
    """The second finds a row that has moved on, and drops its copy."""
    [(field, value)] = poisoned.services.redis.hgetall(OUTBOX).items()
    cure(poisoned)
    poisoned.refresh_due()
    poisoned.services.redis.hset(OUTBOX, field, value)

    rival.refresher.refresh_due("default")

    assert waiting(poisoned) == set()
    assert_stored(poisoned, ANN, version=2)


def test_a_sign_in_while_it_waits_wins(poisoned: Mailboxes) -> None:
    """The trigger is gone, Ann has signed in, and only then somebody drains: her new grant stays."""
    cure(poisoned)
    poisoned.sign_in(ANN, strict=True)
    granted = poisoned.emulator.newest_refresh_token(ANN)

    assert poisoned.refresh_due() == {"claimed": 1, "refreshed": 1}

    assert waiting(poisoned) == set()
    assert not poisoned.emulator.accepts(granted)  # it is the new one that has been spent
    assert_stored(poisoned, ANN, version=3)


@pytest.mark.parametrize("verbs", [("pause",), ("pause", "resume"), ("resume",)])
def test_an_operator_meanwhile_does_not_end_the_grant(poisoned: Mailboxes, verbs: tuple[str, ...]) -> None:
    """What is stored is as spent as before, and what waits is what there is to go on with. The cache learns it."""
    cure(poisoned)
    for verb in verbs:
        getattr(poisoned.services.accounts, verb)(ANN)
    status = poisoned.account(ANN).status

    poisoned.services.refresher.batches_due(at_most=1)

    account = poisoned.account(ANN)
    assert waiting(poisoned) == set()
    assert account.status is status
    newest = poisoned.emulator.newest_refresh_token(ANN)
    assert poisoned.stored_refresh_token(ANN) == newest
    assert poisoned.emulator.accepts(newest)
    entry = TokenCache(poisoned.services.cache, Vault(poisoned.settings.keys)).read(account.id)
    assert entry
    assert (entry.version, entry.refresh_token) == (account.version, account.refresh_token)
    poisoned.services.accounts.resume(ANN)
    assert poisoned.services.on_demand.refresh(account.id).version == poisoned.account(ANN).version
    assert poisoned.emulator.accepts(poisoned.stored_refresh_token(ANN))


def test_what_nobody_can_read_is_left_for_a_human_and_blocks_nobody(mailboxes: Mailboxes) -> None:
    """A value of a version to come, or half of one: everybody else's is stored, and these accounts are let be."""
    shape = {"email": "x", "base": 1, "version": 2, "tokens": ["AA==", None, None], "times": [NOW.isoformat()] * 3}
    odd: list[dict[str, object]] = [
        {"tokens": ["*"]},
        {"tokens": [None] * 3},
        {"times": ["T"] * 3},
        {"times": None},
        {"base": "?"},
    ]
    values = [b"garbage", b"\xff\xfe", b"[]", b"{}", *(json.dumps(shape | each).encode() for each in odd)]
    victims = emails(len(values))
    left = {account_id(email): value for email, value in zip(victims, values, strict=True)}
    mailboxes.sign_in(*victims, BOB)
    outbox = OutboxStore(mailboxes.services.redis)
    outbox.put(left)

    assert mailboxes.refresh_due() == {"claimed": len(values) + 1, "refreshed": 1, "returned": len(values)}

    assert kept(outbox) == left
    assert_stored(mailboxes, BOB, version=2)
    assert mailboxes.requests == 1


def test_rotate_keys_says_that_something_waits(mailboxes: Mailboxes, command: Callable[..., str]) -> None:
    """It may be sealed under the key that is to go."""
    OutboxStore(mailboxes.services.redis).put({account_id(ANN): b"garbage"})

    with pytest.raises(CalledProcessError) as failed:
        command("rotate-keys")

    assert failed.value.returncode == 1
    assert "1 still wait in the outbox" in failed.value.stderr


def test_what_only_somebody_else_held_does_not_count_as_waiting(mailboxes: Mailboxes) -> None:
    """Workers drain as well while keys are rotated: what they held is tried once more at the end."""
    held, other = map(account_id, emails(2))
    mailboxes.sign_in(*emails(2))
    OutboxStore(mailboxes.services.redis).put({held: ENTRY, other: ENTRY})
    poison(mailboxes, seconds=0.5)
    storing = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"

    with ThreadPoolExecutor(1) as pool:
        with mailboxes.services.database.begin() as rival:
            assert late_writes.hold(rival, [held]) == {held}
            drain = pool.submit(mailboxes.services.outbox.drain_all)
            wait_for(lambda: mailboxes.query(storing), about="the other to be stored")
        assert drain.result() == 0

    assert {account.version for account in mailboxes.accounts()} == {2}


def test_a_missing_ledger_loses_no_token(mailboxes: Mailboxes, rival: Services) -> None:
    """Its line is written in the same transaction as the tokens; without the table they wait and come home alone."""
    mailboxes.sign_in(ANN, *emails(5), strict=True)
    mailboxes.query("ALTER TABLE refresh_events RENAME TO elsewhere")

    assert mailboxes.refresh_due() == {"claimed": 6, "refreshed": 6}
    assert len(waiting(mailboxes)) == 6
    assert rival.refresher.refresh_due("default") == {"claimed": 0}

    assert waiting(mailboxes) == set()
    for email in (ANN, *emails(5)):
        assert_stored(mailboxes, email, version=2)
    mailboxes.query("ALTER TABLE elsewhere RENAME TO refresh_events")
    mailboxes.clock.advance(hours=2)
    assert mailboxes.refresh_due() == {"claimed": 6, "refreshed": 6}
    assert mailboxes.query("SELECT count(*) FROM refresh_events") == [(6,)]


def test_a_row_that_postgres_refuses_does_not_keep_others_waiting(mailboxes: Mailboxes, rival: Services) -> None:
    """They are stored many at a time, and one of them spoils the statement."""
    mailboxes.sign_in(ANN, *emails(19), strict=True)
    mailboxes.query("ALTER TABLE refresh_events RENAME TO elsewhere")
    mailboxes.refresh_due()
    assert len(waiting(mailboxes)) == 20
    poison(mailboxes)

    assert rival.refresher.refresh_due("default") == {"claimed": 0}

    assert waiting(mailboxes) == {str(account_id(ANN))}
    for email in emails(19):
        assert_stored(mailboxes, email, version=2)


def test_a_failure_that_cannot_be_stored_is_found_again(mailboxes: Mailboxes, clock: TurnedClock) -> None:
    """There is no token to lose: the lease runs out, and the next question gets the same answer."""
    mailboxes.sign_in(ANN, BOB)
    mailboxes.emulator.add_fault(oauth_error("50173"), ANN)
    mailboxes.query("ALTER TABLE refresh_events RENAME TO elsewhere")

    assert mailboxes.refresh_due() == {"claimed": 2, "refreshed": 1}
    assert mailboxes.account(ANN).status is Status.ACTIVE
    mailboxes.query("ALTER TABLE elsewhere RENAME TO refresh_events")
    clock.advance(minutes=3)

    assert mailboxes.refresh_due() == {"claimed": 1, "reauth_required": 1}
    assert mailboxes.account(ANN).status is Status.REAUTH_REQUIRED


def test_who_refreshes_a_row_that_is_refused_gets_the_token(mailboxes: Mailboxes, rival: Services) -> None:
    """A consumer on demand, an operator by hand: what they get waits like any other, and is in the cache meanwhile."""
    mailboxes.sign_in(ANN, strict=True)
    poison(mailboxes)

    token = mailboxes.services.tokens.get(ANN)

    assert token.version == 2
    assert waiting(mailboxes) == {str(account_id(ANN))}
    cure(mailboxes)
    mailboxes.refresh_due()
    assert_stored(mailboxes, ANN, version=2)
    poison(mailboxes)
    assert rival.on_demand.refresh(account_id(ANN)).version == 3
    cure(mailboxes)
    mailboxes.refresh_due()
    assert_stored(mailboxes, ANN, version=3)
