"""When a credential is due and what an outcome changes: tables and laws."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_claim, make_refreshed
from worker.domain.account import AccountId, Failure, Lease, Status
from worker.domain.outcome import (
    Blocked,
    Misconfigured,
    Outcome,
    ReauthRequired,
    Scope,
    Throttled,
    Transient,
)
from worker.domain.policy import STRIKES, STRIKES_OVER, AccountUpdate, RefreshPolicy, keyed_fraction, streak
from worker.domain.token import AccessToken, Secret

POLICY = RefreshPolicy()
UNPROVEN = ReauthRequired(code="invalid_grant", certain=False)
DEAD = ReauthRequired(code="AADSTS50173", claims="{}")

accounts = st.uuids().map(AccountId)
versions = st.integers(min_value=1, max_value=2**40)
lifetimes = st.floats(min_value=1, max_value=172_800).map(lambda seconds: timedelta(seconds=seconds))
ordinary_lifetimes = st.integers(min_value=3600, max_value=5400).map(lambda seconds: timedelta(seconds=seconds))
attempts = st.integers(min_value=1, max_value=10_000)
temporary = st.sampled_from(
    [
        Throttled(code="http_429"),
        Throttled(code="AADSTS90055", scope=Scope.TENANT),
        Transient(code="timeout"),
        Misconfigured(code="AADSTS7000215"),
    ]
)


def token(lifetime: timedelta) -> AccessToken:
    return AccessToken(
        email="ann@contoso.com", secret=Secret("t"), obtained_at=NOW, expires_at=NOW + lifetime, version=1
    )


def failing(kind: str, *, count: int = 1, since: datetime = NOW) -> Failure:
    return Failure(kind=kind, code="x", count=count, since=since)


@given(account=accounts, version=versions, lifetime=lifetimes)
def test_due_lies_between_earliest_and_latest_of_the_lifetime(
    account: AccountId, version: int, lifetime: timedelta
) -> None:
    """0.5 to 0.7 of whatever lifetime Microsoft gave, up to the rounding of a microsecond."""
    due = POLICY.due_at(account, version, make_refreshed(expires_at=NOW + lifetime))

    slack = timedelta(microseconds=1)
    assert lifetime * POLICY.earliest - slack <= due - NOW <= lifetime * POLICY.latest + slack


@given(account=accounts, version=versions, lifetime=lifetimes, lead=st.integers(min_value=0, max_value=7200))
def test_due_is_never_later_than_expiry_minus_the_lead(
    account: AccountId, version: int, lifetime: timedelta, lead: int
) -> None:
    """The lead yields only where it would pull the due time before the earliest fraction."""
    policy = RefreshPolicy(min_lead=timedelta(seconds=lead))
    expires_at = NOW + lifetime

    due = policy.due_at(account, version, make_refreshed(expires_at=expires_at))

    assert due <= expires_at - policy.min_lead or lifetime * (1 - policy.earliest) <= policy.min_lead
    assert due < expires_at


@given(account=accounts, version=versions, lifetime=ordinary_lifetimes)
def test_an_ordinary_token_is_refreshed_long_before_a_consumer_would_have_to(
    account: AccountId, version: int, lifetime: timedelta
) -> None:
    """At its due time a 60 to 90 minute token is still fresh for a consumer without a wish of its own."""
    due = POLICY.due_at(account, version, make_refreshed(expires_at=NOW + lifetime))

    assert POLICY.is_fresh(token(lifetime), None, now=due)


@given(account=accounts, version=versions, lifetime=lifetimes, refresh_in=lifetimes)
def test_refresh_on_only_makes_it_earlier(
    account: AccountId, version: int, lifetime: timedelta, refresh_in: timedelta
) -> None:
    """Microsoft's hint never delays a refresh, and never makes it immediate."""
    plain = make_refreshed(expires_at=NOW + lifetime)
    hinted = replace(plain, refresh_on=NOW + refresh_in)

    without, due = POLICY.due_at(account, version, plain), POLICY.due_at(account, version, hinted)

    assert due <= without
    assert due <= NOW + max(refresh_in, POLICY.backoff_base)
    assert due >= min(without, NOW + POLICY.backoff_base)


@pytest.mark.parametrize(
    ("refresh_in", "due_in"),
    [
        pytest.param(timedelta(minutes=10), timedelta(minutes=10), id="earlier than the spread"),
        pytest.param(timedelta(0), timedelta(seconds=5), id="at once would be a loop"),
        pytest.param(timedelta(hours=-1), timedelta(seconds=5), id="in the past"),
    ],
)
def test_refresh_on_is_followed(refresh_in: timedelta, due_in: timedelta) -> None:
    """If it is earlier than our own time, and not before a first back-off has passed."""
    refreshed = make_refreshed(refresh_on=NOW + refresh_in)

    assert POLICY.due_at(make_claim().account_id, 1, refreshed) == NOW + due_in


def test_the_spread_is_stable() -> None:
    """The same in every process, release and language: these numbers must never change."""
    account = AccountId(UUID("00000000-0000-0000-0000-000000000001"))

    assert [round(keyed_fraction(account, salt), 6) for salt in range(4)] == [0.742809, 0.698367, 0.51418, 0.234259]


@given(account=accounts, salt=versions)
def test_a_fraction_is_within_the_unit_interval(account: AccountId, salt: int) -> None:
    """One itself is excluded: the latest time is a bound, not a meeting point."""
    assert 0 <= keyed_fraction(account, salt) < 1


def test_the_spread_is_even() -> None:
    """Ten thousand accounts enrolled in one second do not come back in one second."""
    fractions = [keyed_fraction(AccountId(UUID(int=n)), 1) for n in range(10_000)]

    tenths = [sum(low <= fraction * 10 < low + 1 for fraction in fractions) for low in range(10)]
    assert min(tenths) > 850
    assert max(tenths) < 1150


@pytest.mark.parametrize("of", ["neighbouring accounts", "neighbouring versions"])
def test_the_spread_is_uncorrelated(of: str) -> None:
    """Who is early once is not early for ever, and neighbours do not stay together."""
    one, other = AccountId(UUID(int=1)), AccountId(UUID(int=2))
    if of == "neighbouring accounts":
        pairs = [(keyed_fraction(one, n), keyed_fraction(other, n)) for n in range(5000)]
    else:
        pairs = [(keyed_fraction(one, n), keyed_fraction(one, n + 1)) for n in range(5000)]

    assert abs(correlation(pairs)) < 0.05


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    left, right = fmean(x for x, _ in pairs), fmean(y for _, y in pairs)
    covariance = fmean((x - left) * (y - right) for x, y in pairs)
    spread = fmean((x - left) ** 2 for x, _ in pairs) * fmean((y - right) ** 2 for _, y in pairs)
    return float(covariance / spread**0.5)


@given(account=accounts, attempt=attempts)
def test_a_backoff_is_at_least_five_seconds_and_at_most_fifteen_minutes(account: AccountId, attempt: int) -> None:
    """Microsoft asks for the first; the second keeps a recovered service from standing idle."""
    assert timedelta(seconds=5) <= POLICY.backoff(account, attempt) <= timedelta(minutes=15)


@given(account=accounts, attempt=st.integers(min_value=1, max_value=6))
def test_a_backoff_grows_with_every_attempt(account: AccountId, attempt: int) -> None:
    """Doubling outweighs the spread of half as much again, until the cap is near."""
    assert POLICY.backoff(account, attempt) < POLICY.backoff(account, attempt + 1)


@given(account=accounts, attempt=attempts)
def test_a_backoff_stays_within_bounds_that_only_rise(account: AccountId, attempt: int) -> None:
    """From the doubled base to half as much again; both bounds stop at the cap."""
    floor = min(timedelta(minutes=10), timedelta(seconds=5) * 2 ** min(attempt - 1, 20))

    assert floor <= POLICY.backoff(account, attempt) <= floor * 1.5


def test_backoffs_at_the_cap_do_not_gather() -> None:
    """A thousand accounts that fail together for hours must not come back together."""
    waits = {POLICY.backoff(AccountId(UUID(int=n)), 50) for n in range(1000)}

    assert len(waits) > 990
    assert max(waits) - min(waits) > timedelta(minutes=4)


def test_a_success_makes_the_account_active_and_ends_every_streak() -> None:
    """Whatever it was before; the due time is that of the version to be written."""
    refreshed = make_refreshed()
    for status in (Status.ACTIVE, Status.REAUTH_REQUIRED, Status.BLOCKED):
        claim = make_claim(status=status, failure=failing("transient", count=9), version=4)

        plan = POLICY.plan(claim, refreshed, now=NOW)

        assert plan == AccountUpdate(
            account_id=claim.account_id,
            email=claim.email,
            based_on=4,
            lease_id=claim.lease_id,
            status=Status.ACTIVE,
            due_at=POLICY.due_at(claim.account_id, 5, refreshed),
        )


@given(outcome=temporary, status=st.sampled_from([Status.ACTIVE, Status.REAUTH_REQUIRED, Status.BLOCKED]))
def test_what_passes_keeps_the_status(outcome: Outcome, status: Status) -> None:
    """Throttled, transient and misconfigured condemn nobody, and absolve nobody either."""
    plan = POLICY.plan(make_claim(status=status), outcome, now=NOW)

    assert plan.status is status
    assert plan.failure is not None
    assert NOW + timedelta(seconds=5) <= plan.due_at <= NOW + timedelta(minutes=15)


@given(
    outcome=temporary,
    count=st.integers(min_value=0, max_value=100),
    retry_after=st.none() | st.integers(min_value=0, max_value=86_400),
)
def test_retry_after_wins(outcome: Outcome, count: int, retry_after: int | None) -> None:
    """The next attempt is never before it, and hardly later if our own back-off is shorter."""
    if not isinstance(outcome, Throttled | Transient):
        return
    at_least = None if retry_after is None else timedelta(seconds=retry_after)
    claim = make_claim()
    failure = failing(POLICY_KINDS[type(outcome)], count=count) if count else None

    plan = POLICY.plan(replace(claim, failure=failure), replace(outcome, retry_after=at_least), now=NOW)

    own = POLICY.backoff(claim.account_id, count + 1)
    asked = at_least or timedelta(0)
    assert max(own, asked) <= plan.due_at - NOW <= max(own, asked * 1.1)


def test_those_who_are_told_the_same_do_not_come_back_together() -> None:
    """Half an hour for everybody after a storm of AADSTS50196 would end in the next storm."""
    told = Throttled(code="AADSTS50196", retry_after=timedelta(minutes=30))
    claims = [make_claim(account_id=AccountId(UUID(int=n))) for n in range(100)]

    minutes = {(POLICY.plan(claim, told, now=NOW).due_at - NOW) // timedelta(seconds=30) for claim in claims}

    assert minutes == set(range(60, 66))


POLICY_KINDS: dict[type, str] = {Throttled: "throttled", Transient: "transient"}


def test_a_certain_answer_needs_no_second() -> None:
    """A revoked grant is dead at once, and is looked at daily."""
    plan = POLICY.plan(make_claim(), DEAD, now=NOW)

    assert plan.status is Status.REAUTH_REQUIRED
    assert timedelta(days=1) <= plan.due_at - NOW <= timedelta(days=1.1)


def test_a_blocked_account_is_looked_at_daily() -> None:
    """Administrators change their minds."""
    plan = POLICY.plan(make_claim(), Blocked(code="AADSTS53003"), now=NOW)

    assert plan.status is Status.BLOCKED
    assert timedelta(days=1) <= plan.due_at - NOW <= timedelta(days=1.1)


GONE = Misconfigured(code="AADSTS90002", scope=Scope.TENANT)


@pytest.mark.parametrize(
    ("before", "failing_for", "code", "status"),
    [
        pytest.param("AADSTS90002", timedelta(0), "AADSTS90002", Status.ACTIVE, id="at first"),
        pytest.param("AADSTS90002", timedelta(hours=23, minutes=59), "AADSTS90002", Status.ACTIVE, id="hardly a day"),
        pytest.param("AADSTS90002", timedelta(days=1), "AADSTS90002", Status.BLOCKED, id="for a day"),
        pytest.param("AADSTS700016", timedelta(days=1), "AADSTS90002", Status.BLOCKED, id="one way or another"),
        pytest.param("AADSTS7000215", timedelta(days=9), "AADSTS90002", Status.ACTIVE, id="after something else"),
        pytest.param("AADSTS90002", timedelta(days=9), "AADSTS7000215", Status.ACTIVE, id="and then something else"),
        pytest.param("authority_refused", timedelta(days=9), "authority_refused", Status.ACTIVE, id="what is stored"),
    ],
)
def test_a_tenant_that_stays_away_needs_its_administrator(
    before: str, failing_for: timedelta, code: str, status: Status
) -> None:
    """Until then it may be a slip, and is asked again soon; from then on somebody is told, and it is asked daily."""
    failure = replace(failing("misconfigured", count=90, since=NOW - failing_for), code=before)
    claim = make_claim(failure=failure)

    plan = POLICY.plan(claim, replace(GONE, code=code), now=NOW)

    assert plan.status is status
    assert (plan.due_at - NOW >= timedelta(days=1)) is (status is Status.BLOCKED)
    assert plan.failure is not None
    assert plan.failure.since == NOW - failing_for


def test_an_outage_neither_blocks_a_tenant_nor_gives_it_another_day() -> None:
    """Only what the tenant itself has answered counts."""
    claim = make_claim(failure=failing("transient", count=90, since=NOW - timedelta(days=3)))
    blocked = replace(claim, status=Status.BLOCKED)

    assert POLICY.plan(claim, GONE, now=NOW).status is Status.ACTIVE
    assert POLICY.plan(blocked, GONE, now=NOW).due_at - NOW >= timedelta(days=1)


def test_daily_looks_are_spread() -> None:
    """A tenant that blocked a thousand accounts in a minute does not meet them in one minute tomorrow."""
    claims = [make_claim(account_id=AccountId(UUID(int=n))) for n in range(100)]

    due = {POLICY.plan(claim, Blocked(code="AADSTS53003"), now=NOW).due_at for claim in claims}

    assert len(due) == 100
    assert max(due) - min(due) > timedelta(hours=1)


def struck(claim: Lease, plan: AccountUpdate) -> Lease:
    """The next claim on the account, as the plan has left it."""
    return replace(claim, status=plan.status, failure=plan.failure, strikes=plan.strikes, struck_at=plan.struck_at)


def strike_until_dead(claim: Lease, *, every: timedelta | None = None) -> list[tuple[datetime, Status]]:
    """Unproven answers, each at the planned time or every so often, until the account is given up."""
    now, seen = NOW, list[tuple[datetime, Status]]()
    while not seen or seen[-1][1] is Status.ACTIVE:
        plan = POLICY.plan(claim, UNPROVEN, now=now)
        seen.append((now, plan.status))
        claim = struck(claim, plan)
        now = plan.due_at if every is None else now + every
    return seen


def test_three_strikes_over_ten_minutes_end_it() -> None:
    """On schedule: now, after five minutes, after ten."""
    assert strike_until_dead(make_claim()) == [
        (NOW, Status.ACTIVE),
        (NOW + timedelta(minutes=5), Status.ACTIVE),
        (NOW + timedelta(minutes=10), Status.REAUTH_REQUIRED),
    ]


@given(every=st.integers(min_value=1, max_value=3600))
def test_no_number_of_quick_strikes_ends_it(every: int) -> None:
    """An impatient operator cannot kill an account: it takes three answers and ten minutes, both."""
    seen = strike_until_dead(make_claim(), every=timedelta(seconds=every))

    assert len(seen) >= STRIKES
    assert seen[-1][0] - NOW >= STRIKES_OVER
    assert all(at - NOW < STRIKES_OVER or n < STRIKES for n, (at, _) in enumerate(seen[:-1], start=1))


@given(outcome=temporary)
def test_an_outage_in_between_neither_adds_a_strike_nor_forgives_one(outcome: Outcome) -> None:
    """A timeout proves nothing either way; a dead grant in a bad week must still be found."""
    claim = make_claim(strikes=2, struck_at=NOW - timedelta(hours=1))

    between = POLICY.plan(claim, outcome, now=NOW)
    after = POLICY.plan(struck(claim, between), UNPROVEN, now=NOW + timedelta(minutes=5))

    assert (between.status, between.strikes) == (Status.ACTIVE, 2)
    assert after.status is Status.REAUTH_REQUIRED


def test_a_success_in_between_forgives_every_strike() -> None:
    """A grant that worked is alive."""
    plan = POLICY.plan(make_claim(strikes=2, struck_at=NOW), make_refreshed(), now=NOW)

    assert (plan.failure, plan.strikes, plan.struck_at) == (None, 0, None)


def test_a_streak_remembers_its_first_instant_and_its_last_code() -> None:
    """Operators ask since when, and what it says now."""
    first = streak(None, Transient(code="timeout"), now=NOW)
    second = streak(first, Transient(code="http_503"), now=NOW + timedelta(minutes=1))

    assert first == Failure(kind="transient", code="timeout", count=1, since=NOW)
    assert second == Failure(kind="transient", code="http_503", count=2, since=NOW)


def test_a_streak_of_another_class_is_another_streak() -> None:
    """A wrong secret after an outage backs off from the start."""
    outage = failing("transient", count=7, since=NOW - timedelta(hours=2))

    assert streak(outage, Misconfigured(code="AADSTS7000215"), now=NOW) == Failure(
        kind="misconfigured", code="AADSTS7000215", count=1, since=NOW
    )


def test_throttling_and_outages_are_one_streak() -> None:
    """Or answers that alternate between 429 and 503 would be asked for again in seconds, for ever."""
    outage = failing("transient", count=7, since=NOW)

    assert streak(outage, Throttled(code="http_429"), now=NOW + timedelta(hours=1)) == Failure(
        kind="throttled", code="http_429", count=8, since=NOW
    )


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("lifetime", "left", "min_ttl", "fresh"),
    [
        pytest.param(HOUR, timedelta(minutes=6), None, True, id="above five minutes"),
        pytest.param(HOUR, timedelta(minutes=5), None, False, id="at five minutes"),
        pytest.param(HOUR, timedelta(0), None, False, id="expired this instant"),
        pytest.param(HOUR, timedelta(minutes=-1), None, False, id="expired"),
        pytest.param(timedelta(minutes=8), timedelta(minutes=3), None, True, id="short-lived: above a quarter"),
        pytest.param(timedelta(minutes=8), timedelta(minutes=2), None, False, id="short-lived: at a quarter"),
        pytest.param(HOUR, timedelta(minutes=30), timedelta(minutes=29), True, id="a wish that is met"),
        pytest.param(HOUR, timedelta(minutes=30), timedelta(minutes=30), False, id="a wish that is just not met"),
        pytest.param(HOUR, timedelta(seconds=1), timedelta(0), True, id="alive is enough"),
        pytest.param(HOUR, timedelta(0), timedelta(0), False, id="dead is not enough"),
        pytest.param(HOUR, timedelta(0), timedelta(hours=-1), False, id="a negative wish revives nothing"),
        pytest.param(HOUR, timedelta(minutes=55), timedelta(hours=5), True, id="an impossible wish: new"),
        pytest.param(HOUR, timedelta(minutes=54), timedelta(hours=5), False, id="an impossible wish: a tenth gone"),
    ],
)
def test_a_token_is_fresh_if_it_will_do(
    lifetime: timedelta, left: timedelta, min_ttl: timedelta | None, fresh: bool
) -> None:
    """Five minutes or a quarter of a short life without a wish; the wish, up to 0.9 of the lifetime."""
    assert POLICY.is_fresh(token(lifetime), min_ttl, now=NOW + lifetime - left) is fresh


@given(lifetime=lifetimes, min_ttl=st.none() | st.integers(min_value=0, max_value=10**6))
def test_a_token_just_obtained_is_always_fresh(lifetime: timedelta, min_ttl: int | None) -> None:
    """Or every read would cost a refresh and still get nothing better."""
    wish = None if min_ttl is None else timedelta(seconds=min_ttl)

    assert POLICY.is_fresh(token(lifetime), wish, now=NOW)


@given(lifetime=lifetimes, min_ttl=st.none() | st.integers(min_value=-10, max_value=10**6))
def test_freshness_only_ever_fades(lifetime: timedelta, min_ttl: int | None) -> None:
    """Once stale, a token does not become fresh again; and never after its end."""
    wish = None if min_ttl is None else timedelta(seconds=min_ttl)
    instants = [NOW + lifetime * tenth / 10 for tenth in range(12)]

    fresh = [POLICY.is_fresh(token(lifetime), wish, now=now) for now in instants]

    assert all(before or not after for before, after in pairwise(fresh))
    assert not any(fresh[10:])
