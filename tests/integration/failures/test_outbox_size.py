"""After an outage of hours the outbox holds more than fits in one look, and all of it comes home."""

from contextlib import closing
from datetime import datetime, timedelta
from uuid import uuid4

from tests.factories import NOW
from tests.integration.failures.mailboxes import Mailboxes, emails
from tests.integration.outboxes import ENTRY, kept
from worker.bootstrap import Services, bootstrap
from worker.cache import OutboxStore
from worker.domain.account import AccountId, account_id

MANY = 40_000  # of which Valkey looks through a part at a time, until it has found some


class HurriedClock:
    """Ten seconds go by between any two looks at it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=10)
        return self.now


def put(services: Services, accounts: list[AccountId], value: bytes) -> OutboxStore:
    outbox = OutboxStore(services.redis)
    for first in range(0, len(accounts), 5_000):
        outbox.put(dict.fromkeys(accounts[first : first + 5_000], value))
    return outbox


def strangers(number: int) -> list[AccountId]:
    return [AccountId(uuid4()) for _ in range(number)]


def test_a_big_outbox_comes_home_to_its_last_entry(mailboxes: Mailboxes) -> None:
    """What has been brought home leaves a gap in front, behind which Valkey must be asked to look.

    Most of it is of accounts that are gone, which is quicker.
    """
    mailboxes.sign_in(*emails(50))
    outbox = put(mailboxes.services, [*strangers(MANY), *map(account_id, emails(50))], ENTRY)

    assert mailboxes.refresh_due() == {"claimed": 0}

    assert kept(outbox) == {}
    assert {account.version for account in mailboxes.accounts()} == {2}


def test_what_nobody_can_read_does_not_hide_the_others(mailboxes: Mailboxes) -> None:
    """However much of it there is."""
    outbox = put(mailboxes.services, unreadable := strangers(3_000), b"garbage")
    put(mailboxes.services, strangers(50), ENTRY)

    mailboxes.refresh_due()

    assert kept(outbox).keys() == set(unreadable)


def test_claims_do_not_wait_until_all_is_home(mailboxes: Mailboxes) -> None:
    """There may be a million, for many minutes. The rest comes home before the next claims, and what cannot be stored
    is not all that those get round to."""
    outbox = put(mailboxes.services, unreadable := strangers(2_000), b"garbage")
    put(mailboxes.services, strangers(500), ENTRY)
    with closing(bootstrap(mailboxes.settings, utcnow=HurriedClock())) as hurried:
        hurried.refresher.batches_due(at_most=1)
        assert 2_000 < len(kept(outbox)) < 2_500
        for _ in range(20):
            hurried.refresher.batches_due(at_most=1)

    assert kept(outbox).keys() == set(unreadable)
