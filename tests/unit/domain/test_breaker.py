"""The circuit breaker: what opens it, what does not, and how the questions come back. Tables and laws."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_refreshed
from worker.domain.account import AccountId
from worker.domain.breaker import SUSPECTS, Breaker, judge
from worker.domain.outcome import Blocked, Misconfigured, Outcome, ReauthRequired, Scope, Throttled, Transient

CLOSED = Breaker(client="default")
REFUSED = Misconfigured(code="AADSTS7000215")
MINUTE = timedelta(minutes=1)
LATER = NOW + timedelta(days=1)

ABOUT_US = [
    REFUSED,
    Throttled(code="http_429", scope=Scope.CLIENT),
    Transient(code="http_503", scope=Scope.SERVICE),
    Transient(code="dns", scope=Scope.NETWORK),
]
ABOUT_THE_ACCOUNT = [
    make_refreshed(),
    ReauthRequired(code="AADSTS50173"),
    ReauthRequired(code="invalid_grant", certain=False),
    Blocked(code="AADSTS53003"),
    Throttled(code="AADSTS50196"),
    Throttled(code="AADSTS90055", scope=Scope.TENANT),
    Misconfigured(code="AADSTS90002", scope=Scope.TENANT),
    Transient(code="AADSTS50053"),
]


def account(number: int) -> AccountId:
    return AccountId(UUID(int=number))


accounts = st.integers(min_value=1, max_value=6).map(account)
suspicious = st.sampled_from(ABOUT_US)
outcomes = st.sampled_from(ABOUT_US + ABOUT_THE_ACCOUNT)
groups = st.lists(st.lists(st.tuples(accounts, outcomes), min_size=1, max_size=4), max_size=8)
seconds = st.integers(min_value=0, max_value=900)
instants = seconds.map(lambda number: NOW + timedelta(seconds=number))
perhaps = st.none() | instants
breakers = st.builds(
    Breaker,
    client=st.just("default"),
    suspects=st.frozensets(accounts, max_size=SUSPECTS),
    failures=st.integers(min_value=0, max_value=40),
    open_until=perhaps,
    closed_at=perhaps,
)


def after(outcomes: Sequence[Outcome], breaker: Breaker = CLOSED, *, now: datetime = NOW) -> Breaker:
    """One answer after another, each for an account of its own."""
    for number, outcome in enumerate(outcomes, start=1):
        breaker = judge(breaker, [(account(number), outcome)], now=now)
    return breaker


def opened(outcome: Outcome = REFUSED, *, now: datetime = NOW) -> Breaker:
    return after([outcome] * SUSPECTS, now=now)


def fail_again(breaker: Breaker, outcome: Outcome = REFUSED) -> Breaker:
    """The canary is sent as soon as it may be, and comes back with this."""
    assert breaker.open_until is not None
    return judge(breaker.probing(), [(account(1), outcome)], now=breaker.open_until)


@pytest.mark.parametrize("outcome", ABOUT_US, ids=lambda outcome: outcome.code)
def test_three_accounts_in_a_row_open_it(outcome: Outcome) -> None:
    """Two may be chance; after the third, asking for the others is pointless or harmful."""
    assert after([outcome] * 2).open_until is None

    breaker = after([outcome] * 3)

    assert breaker.open_until == NOW + timedelta(seconds=10)
    assert (breaker.failures, breaker.code) == (1, outcome.code)
    assert breaker.allowance(100, now=NOW) == 0


def test_three_accounts_in_one_group_open_it_too() -> None:
    """Answers are shared in groups, as they come."""
    assert judge(CLOSED, [(account(number), REFUSED) for number in (1, 2, 3)], now=NOW).failures == 1


@given(given=st.lists(suspicious, max_size=30), together=st.booleans())
def test_one_account_alone_never_opens_it(given: list[Outcome], together: bool) -> None:
    """However often it fails: its trouble may be its own, whatever the code says."""
    in_groups = [given] if together else [[outcome] for outcome in given]

    breaker = CLOSED
    for group in in_groups:
        breaker = judge(breaker, [(account(1), outcome) for outcome in group], now=NOW)

    assert breaker.open_until is None


@given(numbers=st.lists(st.integers(min_value=1, max_value=SUSPECTS), max_size=20), cut=st.integers(0, 20))
def test_how_often_each_account_fails_does_not_matter(numbers: list[int], cut: int) -> None:
    """It opens with the third distinct account, also if the same ones come up again, and in whichever groups."""
    answers = [(account(number), REFUSED) for number in numbers]

    breaker = judge(judge(CLOSED, answers[:cut], now=NOW), answers[cut:], now=NOW)

    assert (breaker.open_until is not None) == (len(set(numbers)) == SUSPECTS)


@pytest.mark.parametrize("outcome", ABOUT_THE_ACCOUNT, ids=lambda outcome: outcome.code)
def test_an_answer_about_an_account_clears_the_suspects(outcome: Outcome) -> None:
    """Somebody got through, so app and service work, and the counting starts anew."""
    assert after([REFUSED, REFUSED, outcome, REFUSED, REFUSED]).open_until is None
    assert after([REFUSED, REFUSED, outcome]) == CLOSED


@given(number=st.integers(min_value=0, max_value=50), outcome=st.sampled_from(ABOUT_THE_ACCOUNT))
def test_answers_about_accounts_never_open_it(number: int, outcome: Outcome) -> None:
    """A loop detected for each of them (AADSTS50196), or a whole tenant locked out, stops nobody else."""
    assert after([outcome] * number) == CLOSED


@given(late=st.lists(st.tuples(accounts, outcomes), max_size=20), seconds=seconds)
def test_late_answers_change_nothing_once_it_is_open(late: list[tuple[AccountId, Outcome]], seconds: int) -> None:
    """They were asked before it opened: no further failure, no longer wait, and no proof that it is over."""
    breaker = opened()

    assert judge(breaker, late, now=NOW + timedelta(seconds=seconds)) == breaker


def test_only_a_retry_after_of_a_late_answer_counts() -> None:
    """It is for all workers, whoever was told; a shorter one does not shorten the wait."""
    breaker, throttled = opened(), Throttled(code="http_429", scope=Scope.CLIENT, retry_after=MINUTE)

    longer = judge(breaker, [(account(9), throttled)], now=NOW)
    shorter = judge(longer, [(account(9), replace(throttled, retry_after=timedelta(seconds=5)))], now=NOW)

    assert longer == shorter == replace(breaker, open_until=NOW + MINUTE)


@pytest.mark.parametrize("late", [0, 4, 30])
def test_the_wait_doubles_with_each_canary_that_fails_and_with_nothing_else(late: int) -> None:
    """10 s to 5 min: a secret is mended by a person, who then wants to see it work."""
    breaker, waits = opened(), []
    for _ in range(8):
        sent_at = breaker.open_until
        assert sent_at is not None
        for _answer in range(late):
            breaker = judge(breaker, [(account(2), REFUSED)], now=sent_at)
        breaker = fail_again(breaker)
        assert breaker.open_until is not None
        waits.append((breaker.open_until - sent_at).total_seconds())

    assert waits == [20, 40, 80, 160, 300, 300, 300, 300]


@pytest.mark.parametrize("make", [Throttled, Transient])
@pytest.mark.parametrize("asked", [1, 60, 3600, 86_400])
def test_retry_after_wins_over_the_own_wait_but_not_below_it(make: type[Throttled | Transient], asked: int) -> None:
    """Nobody asks before Microsoft wants to be asked, also after the own cap; nor sooner than makes sense."""
    outcome = make(code="busy", retry_after=timedelta(seconds=asked), scope=Scope.SERVICE)

    breaker = opened(outcome)
    assert breaker.open_until == NOW + timedelta(seconds=max(10, asked))

    again = fail_again(breaker, outcome)
    assert again.open_until is not None
    assert again.open_until - breaker.open_until == timedelta(seconds=max(20, asked))


def test_the_longest_retry_after_of_a_group_counts() -> None:
    """One of three says for how long."""
    group: list[tuple[AccountId, Outcome]] = [
        (account(1), Throttled(code="http_429", scope=Scope.CLIENT, retry_after=MINUTE)),
        (account(2), Transient(code="http_503", scope=Scope.SERVICE, retry_after=2 * MINUTE)),
        (account(3), REFUSED),
    ]

    assert judge(CLOSED, group, now=NOW).open_until == NOW + 2 * MINUTE


def test_one_canary_goes_when_the_wait_is_over() -> None:
    """Not before, and not two."""
    breaker = opened()
    assert breaker.open_until is not None

    assert breaker.allowance(100, now=breaker.open_until - timedelta(microseconds=1)) == 0
    assert breaker.allowance(100, now=breaker.open_until) == 1
    assert breaker.allowance(100, now=LATER) == 1
    assert breaker.allowance(0, now=LATER) == 0


@pytest.mark.parametrize("outcome", ABOUT_US, ids=lambda outcome: outcome.code)
def test_one_answer_to_the_canary_is_enough_to_open_it_again(outcome: Outcome) -> None:
    """Probing, it is one suspicious answer away from open: not three."""
    again = fail_again(opened(), outcome)

    assert (again.failures, again.allowance(100, now=NOW + MINUTE / 3)) == (2, 0)


@pytest.mark.parametrize("outcome", ABOUT_THE_ACCOUNT, ids=lambda outcome: outcome.code)
def test_a_canary_that_gets_an_answer_about_its_account_closes_it(outcome: Outcome) -> None:
    """Even if the account itself is dead: Microsoft has looked at it. All that remains is when."""
    breaker = opened()
    for _ in range(3):
        breaker = fail_again(breaker)

    assert judge(breaker.probing(), [(account(7), outcome)], now=LATER) == replace(CLOSED, closed_at=LATER)


def test_probing_a_closed_breaker_is_nothing() -> None:
    """Whoever sends the canary sees a breaker that is not open, and its history as it is."""
    breaker = opened()

    assert CLOSED.probing() == CLOSED
    assert breaker.probing() == replace(breaker, open_until=None)
    assert breaker.probing().allowance(100, now=NOW) == 100


def test_questions_come_back_in_a_ramp_that_doubles_and_ends() -> None:
    """What has waited behind an outage is a wave; Microsoft has just recovered."""
    breaker = judge(opened().probing(), [(account(1), make_refreshed())], now=NOW)

    steps = [breaker.allowance(10_000, now=NOW + timedelta(seconds=at)) for at in (0, 4, 5, 10, 15, 59, 60, 3600)]

    assert steps == [10, 10, 20, 40, 80, 10_000, 10_000, 10_000]
    assert breaker.allowance(3, now=NOW) == 3


def test_it_opens_again_in_the_middle_of_the_ramp_like_any_other() -> None:
    """After three accounts, with the first wait: what was before is over."""
    closed = judge(fail_again(opened()).probing(), [(account(1), make_refreshed())], now=LATER)

    again = after([REFUSED] * 3, closed, now=LATER)

    assert (again.failures, again.open_until) == (1, LATER + timedelta(seconds=10))
    assert after([REFUSED] * 2, closed, now=LATER).allowance(100, now=LATER) == 10


def test_what_happened_during_the_ramp_does_not_start_it_anew() -> None:
    """Good answers on a closed breaker leave the clock of the ramp alone, or it would never end."""
    closed = judge(opened().probing(), [(account(1), make_refreshed())], now=NOW)

    assert after([make_refreshed(), REFUSED, make_refreshed()], closed, now=NOW + MINUTE / 2) == closed


@given(breaker=breakers, wanted=st.integers(min_value=0, max_value=1000), now=instants)
def test_the_allowance_lies_between_none_and_what_is_wanted(breaker: Breaker, wanted: int, now: datetime) -> None:
    """Whatever the history, and with clocks that disagree: a breaker may close in another worker's future."""
    assert 0 <= breaker.allowance(wanted, now=now) <= wanted


@given(breaker=breakers, wanted=st.integers(min_value=1, max_value=1000), now=instants, later=seconds)
def test_left_alone_it_never_allows_less_as_time_passes(
    breaker: Breaker, wanted: int, now: datetime, later: int
) -> None:
    """Waiting helps, always: nothing is barred for ever."""
    then = now + timedelta(seconds=later)

    assert breaker.allowance(wanted, now=now) <= breaker.allowance(wanted, now=then)
    assert breaker.allowance(wanted, now=LATER) >= 1


@given(wanted=st.integers(min_value=0, max_value=10**6), now=instants)
def test_a_closed_breaker_without_a_history_allows_all(wanted: int, now: datetime) -> None:
    """Nearly every day of its life."""
    assert CLOSED.allowance(wanted, now=now) == wanted


@given(groups=groups)
def test_it_is_open_only_after_three_accounts_and_says_why(groups: list[list[tuple[AccountId, Outcome]]]) -> None:
    """Any history: an open breaker has its suspects, a reason that an operator can look up, and an end."""
    breaker = CLOSED
    for group in groups:
        breaker = judge(breaker, group, now=NOW)

    assert (breaker.open_until is not None) == (breaker.failures > 0)
    assert (len(breaker.suspects) == SUSPECTS) == (breaker.failures > 0)
    assert (breaker.kind is None) == (breaker.code is None) == (not breaker.suspects)
