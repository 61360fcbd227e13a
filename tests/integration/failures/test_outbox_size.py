"""After an outage of hours the outbox holds more than fits in one page. All of it is delivered."""

from contextlib import closing
from datetime import datetime, timedelta
from uuid import uuid4

from tests.factories import NOW, emails
from tests.integration.installation import Installation
from tests.integration.outboxes import kept, pending
from worker.bootstrap import bootstrap
from worker.cache import OutboxStore
from worker.domain.account import AccountId, account_id

GARBAGE = 40_000  # values; Valkey scans a part of them at a time


class FastClock:
    """A clock that advances ten seconds at each reading."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=10)
        return self.now


def put_garbage(installation: Installation, number: int) -> OutboxStore:
    store = OutboxStore(installation.services.redis)
    accounts = [AccountId(uuid4()) for _ in range(number)]
    for first in range(0, number, 5_000):
        store.put(dict.fromkeys(accounts[first : first + 5_000], b"garbage"))
    return store


def test_a_big_outbox_is_delivered_to_its_last_value(installation: Installation) -> None:
    """Delivered values leave a gap at the start, and Valkey must still be asked for the values behind it."""
    installation.sign_in(*emails(50), due=True)
    store = put_garbage(installation, GARBAGE)
    installation.services.outbox.add([pending(account_id(email)) for email in emails(50)])

    assert installation.refresh_due() == {"leased": 0}

    assert kept(store) == {}
    assert {account.version for account in installation.accounts()} == {2}


def test_values_of_accounts_without_a_row_hide_no_others(installation: Installation) -> None:
    """They may belong to another installation, so they stay. The other values are delivered."""
    installation.sign_in(*emails(50), due=True)
    strangers = [AccountId(uuid4()) for _ in range(2_000)]
    installation.services.outbox.add([pending(account) for account in strangers])
    installation.services.outbox.add([pending(account_id(email)) for email in emails(50)])

    installation.refresh_due()

    assert kept(OutboxStore(installation.services.redis)).keys() == set(strangers)
    assert {account.version for account in installation.accounts()} == {2}


def test_leases_do_not_wait_until_all_is_delivered(installation: Installation) -> None:
    """There may be a million, which takes many minutes. The rest is delivered before the next leases."""
    installation.sign_in(*emails(600), due=True)
    store = OutboxStore(installation.services.redis)
    installation.services.outbox.add([pending(account_id(email)) for email in emails(600)])
    with closing(bootstrap(installation.settings, utcnow=FastClock())) as fast:
        fast.refresher.batches_due(limit=1)
        assert 0 < len(kept(store)) < 600
        for _ in range(20):
            fast.refresher.batches_due(limit=1)

    assert kept(store) == {}
