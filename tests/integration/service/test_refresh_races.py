"""Two processes work on one account: the newer decision stays, and the older one reaches neither Postgres nor Redis."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.constants import ANN, HOUR, PERSISTED
from tests.integration.installation import Installation
from tests.waiting import HANG_LIMIT
from worker.bootstrap import Services
from worker.devkit.emulator import oauth_error
from worker.domain.account import Status
from worker.domain.token import Sealed, as_text
from worker.service.refresh.results import Trigger
from worker.vault import Purpose

_DROPPED = "Answer dropped: another worker got there first"


def test_two_workers_send_one_request_per_account(installation: Installation) -> None:
    """Any number of beats and workers is safe. Microsoft is strict here and accepts each refresh token once."""
    emails = [f"user{number:03}@contoso.com" for number in range(120)]
    installation.sign_in(*emails, due=True, strict=True)
    workers = [
        installation.another_process(batch_size=7),
        installation.another_process(batch_size=7),
        installation.another_process(batch_size=7),
    ]
    start = Barrier(len(workers))

    def work(services: Services) -> Counter[str]:
        start.wait(HANG_LIMIT)
        tally = Counter[str]()
        while batch := Counter(services.refresher.refresh_due()):
            if not batch["leased"]:
                break
            tally += batch
        return tally

    with ThreadPoolExecutor(len(workers)) as pool:
        tallies = list(pool.map(work, workers))

    assert sum(tallies, Counter()) == {"leased": 120, "refreshed": 120}
    seen = installation.emulator.statistics()
    assert (seen.requests, seen.failures) == (120, 0)
    assert {account.version for account in installation.services.accounts.list()} == {2}


def test_a_sign_in_wins_over_a_refresh_in_flight(installation: Installation) -> None:
    """The response to the old grant must not overwrite the new grant."""
    installation.sign_in(ANN, due=True)

    with installation.in_flight(installation.refresh_due) as refresh:
        grant = installation.grant(ANN)
        installation.services.accounts.save([grant])

    assert refresh.result() == {"leased": 1}
    assert installation.logged(_DROPPED) == [ANN]
    assert installation.logged(PERSISTED) == []
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == grant.refresh_token.reveal()
    assert installation.services.tokens.get(ANN).secret == grant.access_token
    entry = installation.cached()
    assert entry
    stored = installation.account().refresh_token
    assert stored
    assert entry.refresh_token == as_text(stored)


def test_a_refusal_of_the_old_grant_does_not_affect_the_new_one(installation: Installation) -> None:
    """The user signed in because the old grant was dead. Its refusal must not require another sign-in."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"), times=1)

    with installation.in_flight(installation.refresh_due) as refresh:
        installation.sign_in(ANN)

    assert refresh.result() == {"leased": 1}
    assert (installation.account().status, installation.account().failure) == (Status.ACTIVE, None)
    assert installation.services.tokens.get(ANN).version == 2


def test_a_result_after_the_lease_is_dropped_if_another_worker_refreshed(installation: Installation) -> None:
    """Another worker has leased and refreshed the account. The older token must not replace its newer one."""
    installation.sign_in(ANN, due=True)
    other = installation.another_process()

    with installation.in_flight(installation.refresh_due) as late:
        installation.clock.advance(seconds=150)
        assert other.refresher.refresh_due() == {"leased": 1, "refreshed": 1}
        entry = installation.cached()

    assert late.result() == {"leased": 1}
    assert installation.logged(_DROPPED) == [ANN]
    assert installation.cached() == entry
    assert installation.account().version == 2
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == installation.emulator.newest_refresh_token(ANN)


def test_a_result_after_the_lease_is_stored_if_no_worker_took_over(installation: Installation) -> None:
    """The token is the newest, and may be the only one that Microsoft still accepts."""
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(installation.refresh_due) as late:
        installation.clock.advance(seconds=600)

    assert late.result() == {"leased": 1, "refreshed": 1}
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == installation.emulator.newest_refresh_token(ANN)


@pytest.mark.parametrize("verbs", [("pause",), ("pause", "resume"), ("resume",)])
def test_an_operators_command_during_a_refresh_does_not_end_the_grant(
    installation: Installation, verbs: tuple[str, ...]
) -> None:
    """The status is the operator's. The tokens are stored, because the stored refresh token has been used.

    Microsoft is strict here.
    """
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(installation.refresh_due) as late:
        for verb in verbs:
            getattr(installation.services.accounts, verb)(ANN)
        status = installation.account().status

    assert late.result() == {"leased": 1, "refreshed": 1}
    account, entry = installation.account(), installation.cached()
    assert entry
    assert account.status is entry.status is status
    assert (entry.version, entry.refresh_token) == (account.version, as_text(account.refresh_token or Sealed(b"")))
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == installation.emulator.newest_refresh_token(ANN)
    installation.services.accounts.resume(ANN)
    installation.services.on_demand.refresh_now(account.id)
    assert installation.emulator.accepts(installation.emulator.newest_refresh_token(ANN))


def test_a_result_after_the_lease_is_stored_if_the_next_lease_was_released(installation: Installation) -> None:
    """Another worker leased the account and released it without a request, so the stored token is still the used one.

    Microsoft is strict here.
    """
    installation.sign_in(ANN, due=True, strict=True)

    with installation.in_flight(installation.refresh_due) as late:
        installation.query(
            "UPDATE mail_credentials SET lease_id = NULL, refresh_due_at = :now", now=installation.clock()
        )

    assert late.result() == {"leased": 1, "refreshed": 1}
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == installation.emulator.newest_refresh_token(ANN)


def test_a_dropped_result_is_recorded_as_an_event(installation: Installation) -> None:
    """Microsoft has received the request and counts it, so an operator must find it."""
    installation.sign_in(ANN, due=True)

    with installation.in_flight(installation.refresh_due):
        installation.sign_in(ANN)

    [line] = installation.services.events.latest(installation.account().id)
    assert line["outcome"] == "refreshed"


@pytest.mark.parametrize("trigger", list(Trigger))
def test_one_account_is_refreshed_by_one_process_at_a_time(installation: Installation, trigger: Trigger) -> None:
    """The second caller gets the result of the first and sends no request."""
    installation.sign_in(ANN, due=True)
    seen = installation.account()
    other = installation.another_process()

    with installation.in_flight(installation.refresh_due) as first:
        assert other.refresher.refresh_one(installation.account(), trigger) is None
        assert other.refresher.refresh_due() == {"leased": 0}
    first.result()

    assert other.refresher.refresh_one(seen, trigger) is None
    assert installation.requests == 1


@pytest.mark.parametrize("code", ["AADSTS50173", "AADSTS53003", "AADSTS700016", "AADSTS999999"])
def test_a_process_that_read_the_row_before_a_refusal_does_not_repeat_the_request(
    installation: Installation, code: str
) -> None:
    """Twelve processes read one stale account. The refusal of the first request applies to all of them."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error(code))
    seen = installation.account()
    installation.another_process().refresher.refresh_due()

    assert installation.services.refresher.refresh_one(seen, Trigger.CONSUMER) is None

    assert installation.requests == 1


def test_an_account_may_be_refreshed_before_it_is_due(installation: Installation) -> None:
    """The schedule continues from the new token."""
    installation.sign_in(ANN)

    entry = installation.services.refresher.refresh_one(installation.account(), Trigger.OPERATOR)

    assert entry
    assert (entry.version, entry.failure) == (2, None)
    due = installation.account().due_at
    assert due
    assert due >= installation.clock() + HOUR / 2
    [line] = installation.services.events.latest(installation.account().id)
    assert line["trigger"] == "operator"
