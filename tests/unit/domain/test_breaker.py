"""The circuit breaker opens after failures of three accounts, and lets requests through again in steps."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_refreshed
from worker.domain.account import AccountId
from worker.domain.breaker import FAILING_ACCOUNTS, Answer, Breaker, judge
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


def answer(number: int, outcome: Outcome, *, at: datetime = NOW, was_failing: bool = False) -> Answer:
    return Answer(account=account(number), outcome=outcome, requested_at=at, was_failing=was_failing)


numbers = st.integers(min_value=1, max_value=6)
suspicious = st.sampled_from(ABOUT_US)
outcomes = st.sampled_from(ABOUT_US + ABOUT_THE_ACCOUNT)
answers = st.builds(answer, numbers, outcomes, was_failing=st.booleans())
groups = st.lists(st.lists(answers, min_size=1, max_size=4), max_size=8)
seconds = st.integers(min_value=0, max_value=900)
instants = seconds.map(lambda number: NOW + timedelta(seconds=number))
perhaps = st.none() | instants
breakers = st.builds(
    Breaker,
    client=st.just("default"),
    failing_accounts=st.lists(numbers.map(account), unique=True).map(tuple),
    failures=st.integers(min_value=0, max_value=40),
    open_until=perhaps,
    closed_at=perhaps,
)


def after(outcomes: Sequence[Outcome], breaker: Breaker = CLOSED, *, now: datetime = NOW) -> Breaker:
    """The breaker after one outcome after another, each of another account."""
    for number, outcome in enumerate(outcomes, start=1):
        breaker = judge(breaker, [answer(number, outcome)], now=now)
    return breaker


def opened(outcome: Outcome = REFUSED, *, now: datetime = NOW) -> Breaker:
    return after([outcome] * FAILING_ACCOUNTS, now=now)


def fail_again(breaker: Breaker, outcome: Outcome = REFUSED) -> Breaker:
    """The probe is sent as early as possible, and has this outcome."""
    assert breaker.open_until is not None
    return judge(breaker.half_open(), [answer(1, outcome)], now=breaker.open_until)


@pytest.mark.parametrize("outcome", ABOUT_US, ids=lambda outcome: outcome.code)
def test_three_accounts_in_a_row_open_it(outcome: Outcome) -> None:
    """Two failures may be chance. After the third, requests for other accounts would fail or do harm."""
    assert after([outcome] * 2).open_until is None

    breaker = after([outcome] * 3)

    assert breaker.open_until == NOW + timedelta(seconds=10)
    assert (breaker.failures, breaker.code) == (1, outcome.code)
    assert breaker.allowance(100, now=NOW) == 0


def test_three_accounts_in_one_group_open_it_too() -> None:
    """Workers record outcomes in groups."""
    assert judge(CLOSED, [answer(number, REFUSED) for number in (1, 2, 3)], now=NOW).failures == 1


@given(given=st.lists(suspicious, max_size=30), together=st.booleans())
def test_one_account_alone_never_opens_it(given: list[Outcome], together: bool) -> None:
    """The cause may be the account itself, no matter which code it gets and how often."""
    in_groups = [given] if together else [[outcome] for outcome in given]

    breaker = CLOSED
    for group in in_groups:
        breaker = judge(breaker, [answer(1, outcome) for outcome in group], now=NOW)

    assert breaker.open_until is None


@given(numbers=st.lists(st.integers(min_value=1, max_value=FAILING_ACCOUNTS), max_size=20), cut=st.integers(0, 20))
def test_the_number_of_failures_of_one_account_does_not_matter(numbers: list[int], cut: int) -> None:
    """It opens with the third distinct account, in any order and in any groups."""
    given = [answer(number, REFUSED) for number in numbers]

    breaker = judge(judge(CLOSED, given[:cut], now=NOW), given[cut:], now=NOW)

    assert (breaker.open_until is not None) == (len(set(numbers)) == FAILING_ACCOUNTS)


@pytest.mark.parametrize("outcome", ABOUT_THE_ACCOUNT, ids=lambda outcome: outcome.code)
def test_an_outcome_about_an_account_clears_the_failing_accounts(outcome: Outcome) -> None:
    """It shows that app and service work, so the count starts again."""
    assert after([REFUSED, REFUSED, outcome, REFUSED, REFUSED]).open_until is None
    assert after([REFUSED, REFUSED, outcome]) == CLOSED


@given(number=st.integers(min_value=0, max_value=50), outcome=st.sampled_from(ABOUT_THE_ACCOUNT))
def test_outcomes_about_accounts_never_open_it(number: int, outcome: Outcome) -> None:
    """A loop of each account (AADSTS50196), or a locked tenant, must not stop other accounts."""
    assert after([outcome] * number) == CLOSED


@given(late=st.lists(answers, max_size=20), seconds=seconds)
def test_late_outcomes_change_nothing_once_it_is_open(late: list[Answer], seconds: int) -> None:
    """Their requests were sent before it opened, so they neither lengthen the wait nor close it."""
    breaker = opened()

    assert judge(breaker, late, now=NOW + timedelta(seconds=seconds)) == breaker


def test_only_a_retry_after_of_a_late_outcome_counts() -> None:
    """It applies to all workers. A shorter one does not shorten the wait."""
    breaker, throttled = opened(), Throttled(code="http_429", scope=Scope.CLIENT, retry_after=MINUTE)

    longer = judge(breaker, [answer(9, throttled)], now=NOW)
    shorter = judge(longer, [answer(9, replace(throttled, retry_after=timedelta(seconds=5)))], now=NOW)

    assert longer == shorter == replace(breaker, open_until=NOW + MINUTE)


@pytest.mark.parametrize("late", [0, 4, 30])
def test_the_wait_doubles_with_each_probe_that_fails_and_with_nothing_else(late: int) -> None:
    """It grows from 10 s to 5 min. A person who has corrected a secret does not wait longer to see it work."""
    breaker, waits = opened(), []
    for _ in range(8):
        sent_at = breaker.open_until
        assert sent_at is not None
        for _ in range(late):
            breaker = judge(breaker, [answer(2, REFUSED)], now=sent_at)
        breaker = fail_again(breaker)
        assert breaker.open_until is not None
        waits.append((breaker.open_until - sent_at).total_seconds())

    assert waits == [20, 40, 80, 160, 300, 300, 300, 300]


@pytest.mark.parametrize("make", [Throttled, Transient])
@pytest.mark.parametrize("demanded", [1, 60, 3600, 86_400])
def test_the_wait_is_the_longer_of_retry_after_and_the_own_wait(
    make: type[Throttled | Transient], demanded: int
) -> None:
    """Retry-After may exceed the cap of the own wait."""
    outcome = make(code="busy", retry_after=timedelta(seconds=demanded), scope=Scope.SERVICE)

    breaker = opened(outcome)
    assert breaker.open_until == NOW + timedelta(seconds=max(10, demanded))

    again = fail_again(breaker, outcome)
    assert again.open_until is not None
    assert again.open_until - breaker.open_until == timedelta(seconds=max(20, demanded))


def test_the_longest_retry_after_of_a_group_counts() -> None:
    """The group opens the breaker, and one of its outcomes has the longest Retry-After."""
    group = [
        answer(1, Throttled(code="http_429", scope=Scope.CLIENT, retry_after=MINUTE)),
        answer(2, Transient(code="http_503", scope=Scope.SERVICE, retry_after=2 * MINUTE)),
        answer(3, REFUSED),
    ]

    assert judge(CLOSED, group, now=NOW).open_until == NOW + 2 * MINUTE


def test_one_probe_is_allowed_when_the_wait_is_over() -> None:
    """None is allowed before, and no second one."""
    breaker = opened()
    assert breaker.open_until is not None

    assert breaker.allowance(100, now=breaker.open_until - timedelta(microseconds=1)) == 0
    assert breaker.allowance(100, now=breaker.open_until) == 1
    assert breaker.allowance(100, now=LATER) == 1
    assert breaker.allowance(0, now=LATER) == 0


@pytest.mark.parametrize("outcome", ABOUT_US, ids=lambda outcome: outcome.code)
def test_one_failed_probe_is_enough_to_open_it_again(outcome: Outcome) -> None:
    """A half-open breaker needs one failure and not three."""
    again = fail_again(opened(), outcome)

    assert (again.failures, again.allowance(100, now=NOW + MINUTE / 3)) == (2, 0)


@pytest.mark.parametrize("outcome", ABOUT_THE_ACCOUNT, ids=lambda outcome: outcome.code)
def test_a_probe_with_an_outcome_about_its_account_closes_it(outcome: Outcome) -> None:
    """This holds even if the grant is dead, because Microsoft has examined it. The breaker keeps the time only."""
    breaker = opened()
    for _ in range(3):
        breaker = fail_again(breaker)

    assert judge(breaker.half_open(), [answer(7, outcome)], now=LATER) == replace(CLOSED, closed_at=LATER)


def test_half_open_keeps_the_history_and_does_not_change_a_closed_breaker() -> None:
    """The worker that sends the probe works with a breaker that is not open."""
    breaker = opened()

    assert CLOSED.half_open() == CLOSED
    assert breaker.half_open() == replace(breaker, open_until=None)
    assert breaker.half_open().allowance(100, now=NOW) == 100


def test_the_allowance_grows_in_a_ramp_that_doubles_and_ends() -> None:
    """After an outage many accounts are due, and Microsoft has just recovered."""
    breaker = judge(opened().half_open(), [answer(1, make_refreshed())], now=NOW)

    steps = [breaker.allowance(10_000, now=NOW + timedelta(seconds=at)) for at in (0, 4, 5, 10, 15, 59, 60, 3600)]

    assert steps == [10, 10, 20, 40, 80, 10_000, 10_000, 10_000]
    assert breaker.allowance(3, now=NOW) == 3


def test_it_opens_again_in_the_middle_of_the_ramp_like_any_other() -> None:
    """It needs three accounts again, and begins with the first wait."""
    closed = judge(fail_again(opened()).half_open(), [answer(1, make_refreshed())], now=LATER)

    again = after([REFUSED] * 3, closed, now=LATER)

    assert (again.failures, again.open_until) == (1, LATER + timedelta(seconds=10))
    assert after([REFUSED] * 2, closed, now=LATER).allowance(100, now=LATER) == 10


def test_outcomes_during_the_ramp_do_not_start_it_again() -> None:
    """Otherwise the ramp would never end."""
    closed = judge(opened().half_open(), [answer(1, make_refreshed())], now=NOW)

    assert after([make_refreshed(), REFUSED, make_refreshed()], closed, now=NOW + MINUTE / 2) == closed


@given(breaker=breakers, wanted=st.integers(min_value=0, max_value=1000), now=instants)
def test_the_allowance_is_never_more_than_requested(breaker: Breaker, wanted: int, now: datetime) -> None:
    """This holds for every history, also if a breaker closes in the future of another worker's clock."""
    assert 0 <= breaker.allowance(wanted, now=now) <= wanted


@given(breaker=breakers, wanted=st.integers(min_value=1, max_value=1000), now=instants, later=seconds)
def test_left_alone_it_never_allows_less_as_time_passes(
    breaker: Breaker, wanted: int, now: datetime, later: int
) -> None:
    """The wait always ends."""
    then = now + timedelta(seconds=later)

    assert breaker.allowance(wanted, now=now) <= breaker.allowance(wanted, now=then)
    assert breaker.allowance(wanted, now=LATER) >= 1


@given(wanted=st.integers(min_value=0, max_value=10**6), now=instants)
def test_a_closed_breaker_without_a_history_allows_all(wanted: int, now: datetime) -> None:
    """This is the usual state."""
    assert CLOSED.allowance(wanted, now=now) == wanted


@given(groups=groups)
def test_it_is_open_only_after_three_accounts_and_has_a_code(groups: list[list[Answer]]) -> None:
    """After every history an open breaker has its failing accounts, a code for the operator, and an end."""
    breaker = CLOSED
    for group in groups:
        breaker = judge(breaker, group, now=NOW)

    assert (breaker.open_until is not None) == (breaker.failures > 0)
    assert (len(breaker.failing_accounts) >= FAILING_ACCOUNTS) == (breaker.failures > 0)
    assert (breaker.kind is None) == (breaker.code is None) == (not breaker.failing_accounts)


def ask(given: Sequence[Answer], breaker: Breaker = CLOSED) -> Breaker:
    """The breaker after one answer after another, while there is a healthy account to be asked."""
    for each in given:
        breaker = judge(breaker, [each], now=NOW, can_ask=True)
    return breaker


SUSPECTED = ask([answer(1, REFUSED)])
BUSY = Transient(code="http_503", scope=Scope.SERVICE, retry_after=MINUTE)


def test_it_is_suspected_before_it_opens_if_a_healthy_account_can_be_asked() -> None:
    """One refusal of the app registration is enough. The healthy account is asked at once, and others wait."""
    assert (SUSPECTED.is_suspected, SUSPECTED.failures, SUSPECTED.code) == (True, 0, REFUSED.code)
    assert SUSPECTED.allowance(100, now=NOW) == 1


@pytest.mark.parametrize("outcome", [BUSY, Throttled(code="http_429", scope=Scope.CLIENT)])
def test_an_outage_of_a_moment_is_suspected_after_three_accounts(outcome: Outcome) -> None:
    given = [answer(number, outcome) for number in (1, 2, 3)]

    assert ask(given[:2]).opened_at is None
    assert ask(given).is_suspected


@given(given=st.lists(st.builds(answer, numbers, suspicious, was_failing=st.just(True)), max_size=30))
def test_accounts_that_were_failing_before_are_no_evidence(given: list[Answer]) -> None:
    """They may be the cause themselves. This holds no matter how many there are, if a healthy account can be asked."""
    assert ask(given) == CLOSED
    assert judge(CLOSED, given, now=NOW, can_ask=True) == CLOSED


def test_accounts_that_were_failing_before_are_evidence_if_there_is_no_other_account() -> None:
    """All accounts fail since long ago."""
    given = [answer(number, BUSY, was_failing=True) for number in (1, 2, 3)]

    assert judge(CLOSED, given, now=NOW).failures == 1


@pytest.mark.parametrize("outcome", ABOUT_THE_ACCOUNT, ids=lambda outcome: outcome.code)
def test_the_answer_to_the_healthy_account_ends_the_suspicion(outcome: Outcome) -> None:
    """The others have a cause of their own. No ramp follows."""
    assert judge(SUSPECTED.half_open(), [answer(7, outcome)], now=LATER) == CLOSED


def test_the_failure_of_the_healthy_account_opens_it() -> None:
    """Its Retry-After counts, and the first wait follows."""
    confirmed = judge(SUSPECTED.half_open(), [answer(7, BUSY)], now=NOW)

    assert (confirmed.failures, confirmed.open_until, confirmed.code) == (1, NOW + MINUTE, BUSY.code)
    assert confirmed.opened_at == NOW
    assert confirmed.failing_accounts == (account(1), account(7))


def test_a_late_retry_after_does_not_lengthen_a_suspicion() -> None:
    """A throttled tenant must not stop the others."""
    assert judge(SUSPECTED, [answer(2, BUSY)], now=NOW) == SUSPECTED


@pytest.mark.parametrize("breaker", [SUSPECTED, opened()], ids=["suspected", "open"])
def test_a_request_since_then_that_succeeds_closes_it(breaker: Breaker) -> None:
    """It was a new sign-in, or an operator's refresh. If it fails, nothing changes."""
    after_it = NOW + MINUTE

    assert judge(breaker, [answer(7, make_refreshed(), at=after_it)], now=LATER).opened_at is None
    assert judge(breaker, [answer(7, BUSY, at=after_it)], now=LATER) == breaker
    assert judge(breaker, [answer(7, ReauthRequired(code="AADSTS50173"), at=after_it)], now=LATER) == breaker


def test_new_sign_ins_pass_unless_microsoft_throttles_the_registration() -> None:
    throttled = opened(Throttled(code="http_429", scope=Scope.CLIENT))

    assert (opened().admits_sign_ins, SUSPECTED.admits_sign_ins, throttled.admits_sign_ins) == (True, True, False)


def test_a_refusal_that_an_account_has_got_before_shows_nothing() -> None:
    """It may come before Microsoft looks at the credential. That of a healthy account comes after."""
    gone = Misconfigured(code="AADSTS7000112", scope=Scope.TENANT)
    suspects = ask([answer(number, BUSY) for number in (1, 2)])

    assert judge(suspects, [answer(3, gone, was_failing=True)], now=NOW, can_ask=True) == suspects
    assert judge(suspects, [answer(3, gone)], now=NOW, can_ask=True) == CLOSED
    both = [answer(3, REFUSED), answer(4, gone, was_failing=True)]
    assert judge(CLOSED, both, now=NOW, can_ask=True).is_suspected
    assert judge(CLOSED, [*both, answer(5, make_refreshed(), was_failing=True)], now=NOW, can_ask=True) == CLOSED
