"""The bridge over an outage of Postgres fails too: consumers learn why, Microsoft is left alone, nothing is decided."""

from datetime import timedelta
from functools import partial

import pytest

from tests.integration.failures.mailboxes import ANN, BOB, LIFETIME, Mailboxes, emails, read, refusal_with
from worker.bootstrap import Services
from worker.devkit.emulator import fault_named
from worker.devkit.stack import Stack
from worker.domain.account import account_id
from worker.domain.errors import (
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    DatabaseUnavailable,
    NeedsUser,
    WorkerError,
)
from worker.domain.token import AccessToken

TOLD: dict[str, type[WorkerError]] = {
    "50173": NeedsUser,
    "53003": BlockedByAdmin,
    "7000215": ClientMisconfigured,
    "throttled": BackingOff,
    "html-503": BackingOff,
    "12345": BackingOff,
    "reset": BackingOff,
}


def forget_the_note(mailboxes: Mailboxes, email: str) -> None:
    """As if its time were over."""
    assert mailboxes.services.redis.delete(_note(email)) == 1


def keep_the_note(mailboxes: Mailboxes, email: str = ANN) -> None:
    """Redis goes by a clock of its own, and many reads may take longer than the shortest back-off."""
    assert mailboxes.services.redis.pexpire(_note(email), 60_000) == 1


def _note(email: str) -> str:
    return f"token-worker:failed:{account_id(email)}"


def test_a_failure_is_told_noted_for_all_and_decides_nothing(
    mailboxes: Mailboxes, rival: Services, stores: Stack
) -> None:
    """Thirty reads in two processes cost one question per account and back-off. What it means for the account is for
    the schedule to find out, when Postgres is back."""
    users = dict(zip(emails(len(TOLD)), TOLD, strict=True))
    mailboxes.sign_in(*users, strict=True, access_token_lifetime=LIFETIME)
    mailboxes.refresh_due()
    mailboxes.clock.advance(hours=1)
    stores.postgres.stop()
    for email, fault in users.items():
        mailboxes.emulator.add_fault(fault_named(fault), email)

    def reads(email: str) -> None:
        with pytest.raises(TOLD[users[email]]):
            read(mailboxes.services, email)
        keep_the_note(mailboxes, email)
        for number in range(30):
            with pytest.raises(BackingOff):
                read((mailboxes.services, rival)[number % 2], email)

    for email in users:
        assert mailboxes.asked(partial(reads, email)) == 1
        forget_the_note(mailboxes, email)
        assert mailboxes.asked(partial(reads, email)) == 1
    stores.postgres.start()
    assert not any(account.failure for account in mailboxes.accounts())
    assert mailboxes.harmed() == []
    mailboxes.emulator.clear_faults()
    assert {read(rival, email).version for email in users} == {3}


@pytest.mark.parametrize(("fault", "shortest", "longest"), [("throttled", 60, 60), ("html-503", 5, 7.5)])
def test_a_note_stands_as_long_as_microsoft_or_the_back_off_says(
    outage: Mailboxes, rival: Services, fault: str, shortest: float, longest: float
) -> None:
    """Retry-After wins; and the consumer learns how long."""
    outage.emulator.add_fault(fault_named(fault), times=1)
    with pytest.raises(BackingOff) as first:
        read(outage.services)
    left = timedelta(milliseconds=outage.services.redis.pttl(_note(ANN)))
    keep_the_note(outage)

    with pytest.raises(BackingOff) as second:
        read(rival)

    assert shortest <= first.value.retry_after.total_seconds() <= longest
    assert timedelta(0) < left <= first.value.retry_after
    assert timedelta(seconds=30) < second.value.retry_after <= timedelta(minutes=1), "what is left of the note"


def test_a_token_that_still_lives_is_served_while_the_bridge_fails(outage: Mailboxes) -> None:
    """A minute is enough to fetch mail."""
    outage.clock.advance(minutes=-1)
    outage.emulator.add_fault(fault_named("html-503"))

    assert outage.asked(lambda: read(outage.services)) == 1
    keep_the_note(outage)
    assert outage.asked(lambda: [read(outage.services) for _ in range(10)]) == 0
    assert read(outage.services).version == 2


def test_an_account_that_cannot_be_asked_for_fails_alone(mailboxes: Mailboxes, rival: Services, stores: Stack) -> None:
    """A row that no import would have let in: MSAL raises for it before anything is sent, and the others go on."""
    mailboxes.sign_in(ANN, BOB, access_token_lifetime=LIFETIME)
    mailboxes.refresh_due()
    mailboxes.query("UPDATE mail_credentials SET scopes = 'openid' WHERE email = :email", email=BOB)
    mailboxes.services.redis.flushall()
    rival.tokens.get_many([ANN, BOB])  # puts what Postgres has into the cache
    mailboxes.clock.advance(hours=1)
    stores.postgres.stop()

    found = mailboxes.services.tokens.get_many([ANN, BOB])

    assert isinstance(found[ANN], AccessToken)
    assert isinstance(found[BOB], BackingOff)
    assert "internal_error" in str(found[BOB])
    assert isinstance(rival.tokens.get_many([BOB])[BOB], BackingOff)


def test_a_failure_is_told_even_if_it_cannot_be_noted(outage: Mailboxes, stores: Stack) -> None:
    """Redis goes down with the answer: its meaning is worth more to the consumer than the news about Redis."""
    outage.emulator.add_fault(refusal_with("50173", stores.valkey.stop), times=1)

    with pytest.raises(NeedsUser):
        read(outage.services)


def test_without_an_entry_there_is_nothing_to_bridge_with(outage: Mailboxes) -> None:
    """Redis was flushed as well: honest news, and no question."""
    outage.services.redis.flushall()

    with pytest.raises(DatabaseUnavailable):
        read(outage.services)


@pytest.mark.parametrize("act", ["disconnect", "pause"])
def test_what_an_operator_has_ended_is_not_bridged(signed_in: Mailboxes, stores: Stack, act: str) -> None:
    """The cache knows of it at once, and for as long as Postgres is away."""
    getattr(signed_in.services.accounts, act)(ANN)
    stores.postgres.stop()

    def bridge() -> None:
        for _ in range(2):
            with pytest.raises(AccountInactive):
                read(signed_in.services)
            signed_in.clock.advance(hours=1)

    assert signed_in.asked(bridge) == 0
