"""Two who work on one account: the newer decision stays, and the older reaches neither Postgres nor Redis."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.integration.service.house import ANN, HOUR, PERSISTED, House
from worker.bootstrap import Services
from worker.devkit.emulator import oauth_error
from worker.domain.account import Status
from worker.service.refresh.results import Trigger
from worker.vault import Purpose

_DROPPED = "Answer dropped: another worker got there first"


def test_two_workers_ask_once_for_each_account(house: House) -> None:
    """Any number of beats and workers is safe; Microsoft is strict here, and takes each refresh token once."""
    emails = [f"user{number:03}@contoso.com" for number in range(120)]
    house.enrol(*emails, strict=True)
    workers = [house.another(batch_size=7), house.another(batch_size=7), house.another(batch_size=7)]
    start = Barrier(len(workers))

    def work(services: Services) -> Counter[str]:
        start.wait(30)
        tally = Counter[str]()
        while batch := Counter(services.refresher.refresh_due()):
            if not batch["claimed"]:
                break
            tally += batch
        return tally

    with ThreadPoolExecutor(len(workers)) as pool:
        tallies = list(pool.map(work, workers))

    assert sum(tallies, Counter()) == {"claimed": 120, "refreshed": 120}
    seen = house.emulator.statistics()
    assert (seen.requests, seen.failures) == (120, 0)
    assert {account.version for account in house.services.accounts.list()} == {2}


def test_a_sign_in_while_a_refresh_is_under_way_wins(house: House) -> None:
    """The user's newest word counts: the answer to the old grant must not overwrite the new one."""
    house.enrol(ANN)

    with house.in_flight(house.services.refresher.refresh_due) as refresh:
        grant = house.grant(ANN)
        house.services.accounts.save([grant])

    assert refresh.result() == {"claimed": 1}
    assert house.told(_DROPPED) == [ANN]
    assert house.told(PERSISTED) == []
    assert house.opened(Purpose.REFRESH_TOKEN) == grant.refresh_token.reveal()
    assert house.services.tokens.get(ANN).secret == grant.access_token
    entry = house.cached()
    assert entry
    assert entry.refresh_token == house.account().refresh_token


def test_a_death_sentence_for_the_old_grant_does_not_reach_the_new_one(house: House) -> None:
    """The user signed in because the old one was dead; hearing so again must not log the user out."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50173"), times=1)

    with house.in_flight(house.services.refresher.refresh_due) as refresh:
        house.sign_in(ANN)

    assert refresh.result() == {"claimed": 1}
    assert (house.account().status, house.account().failure) == (Status.ACTIVE, None)
    assert house.services.tokens.get(ANN).version == 2


def test_an_answer_that_outlives_its_lease_is_dropped(house: House) -> None:
    """Another worker took the account over and is done: an older token must not replace its newer one."""
    house.enrol(ANN)
    other = house.another()

    with house.in_flight(house.services.refresher.refresh_due) as late:
        house.clock.advance(seconds=150)
        assert other.refresher.refresh_due() == {"claimed": 1, "refreshed": 1}
        entry = house.cached()

    assert late.result() == {"claimed": 1}
    assert house.told(_DROPPED) == [ANN]
    assert house.cached() == entry
    assert house.account().version == 2
    assert house.opened(Purpose.REFRESH_TOKEN) == house.emulator.newest_refresh_token(ANN)


def test_an_answer_that_outlives_its_lease_counts_if_nobody_took_over(house: House) -> None:
    """It is the newest there is, and may be the only one that Microsoft still takes."""
    house.enrol(ANN, strict=True)

    with house.in_flight(house.services.refresher.refresh_due) as late:
        house.clock.advance(seconds=600)

    assert late.result() == {"claimed": 1, "refreshed": 1}
    assert house.opened(Purpose.REFRESH_TOKEN) == house.emulator.newest_refresh_token(ANN)


@pytest.mark.parametrize("verbs", [("pause",), ("pause", "resume"), ("resume",)])
def test_an_operator_while_a_refresh_is_under_way_does_not_end_the_grant(house: House, verbs: tuple[str, ...]) -> None:
    """The state is as the operator said; the tokens are stored, because the one that is has been spent. Microsoft is
    strict here."""
    house.enrol(ANN, strict=True)

    with house.in_flight(house.services.refresher.refresh_due) as late:
        for verb in verbs:
            getattr(house.services.accounts, verb)(ANN)
        status = house.account().status

    assert late.result() == {"claimed": 1, "refreshed": 1}
    account, entry = house.account(), house.cached()
    assert entry
    assert account.status is entry.status is status
    assert (entry.version, entry.refresh_token) == (account.version, account.refresh_token)
    assert house.opened(Purpose.REFRESH_TOKEN) == house.emulator.newest_refresh_token(ANN)
    house.services.accounts.resume(ANN)
    house.services.on_demand.refresh(account.id)
    assert house.emulator.accepts(house.emulator.newest_refresh_token(ANN))


def test_an_answer_that_outlives_its_lease_counts_if_it_was_given_back(house: House) -> None:
    """Another worker took the account over, and returned it unasked: what is stored is what was spent. Microsoft is
    strict here."""
    house.enrol(ANN, strict=True)

    with house.in_flight(house.services.refresher.refresh_due) as late:
        house.query("UPDATE mail_credentials SET lease_id = NULL, refresh_due_at = :now", now=house.clock())

    assert late.result() == {"claimed": 1, "refreshed": 1}
    assert house.opened(Purpose.REFRESH_TOKEN) == house.emulator.newest_refresh_token(ANN)


def test_a_lost_answer_is_in_the_ledger_all_the_same(house: House) -> None:
    """Microsoft was asked, and counts that; who looks for a stray refresh must find it."""
    house.enrol(ANN)

    with house.in_flight(house.services.refresher.refresh_due):
        house.sign_in(ANN)

    [line] = house.services.events.latest(house.account().id)
    assert line["outcome"] == "refreshed"


@pytest.mark.parametrize("trigger", list(Trigger))
def test_one_account_is_refreshed_by_one_at_a_time(house: House, trigger: Trigger) -> None:
    """Whoever comes second is told that there is nothing to do, and asks nobody."""
    house.enrol(ANN)
    seen = house.account()
    other = house.another()

    with house.in_flight(house.services.refresher.refresh_due) as first:
        assert other.refresher.refresh_one(house.account(), trigger) is None
        assert other.refresher.refresh_due() == {"claimed": 0}
    first.result()

    assert other.refresher.refresh_one(seen, trigger) is None
    assert house.asked() == 1


@pytest.mark.parametrize("code", ["AADSTS50173", "AADSTS53003", "AADSTS700016", "AADSTS999999"])
def test_who_looked_before_a_refusal_does_not_ask_again(house: House, code: str) -> None:
    """A dozen processes meet at a stale account: the first is refused, and that is an answer to all of them."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error(code))
    seen = house.account()
    house.another().refresher.refresh_due()

    assert house.services.refresher.refresh_one(seen, Trigger.CONSUMER) is None

    assert house.asked() == 1


def test_an_account_may_be_refreshed_before_it_is_due(house: House) -> None:
    """And the schedule goes on from the new token."""
    house.sign_in(ANN)

    outcome = house.services.refresher.refresh_one(house.account(), Trigger.OPERATOR)

    assert outcome
    assert outcome.code == "ok"
    due = house.account().due_at
    assert due
    assert due >= house.clock() + HOUR / 2
    [line] = house.services.events.latest(house.account().id)
    assert line["trigger"] == "operator"
