"""The due time of an account and its changes after an outcome, in examples and by properties."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW, make_lease, make_refreshed
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
    """It lies between 0.5 and 0.7 of the lifetime, up to the rounding of a microsecond."""
    due = POLICY.due_at(account, version, make_refreshed(expires_at=NOW + lifetime))

    slack = timedelta(microseconds=1)
    assert lifetime * POLICY.earliest - slack <= due - NOW <= lifetime * POLICY.latest + slack


@given(account=accounts, version=versions, lifetime=lifetimes, lead=st.integers(min_value=0, max_value=7200))
def test_due_is_never_later_than_expiry_minus_the_lead(
    account: AccountId, version: int, lifetime: timedelta, lead: int
) -> None:
    """The only exception is a lead that would put the due time before the earliest fraction."""
    policy = RefreshPolicy(min_lead=timedelta(seconds=lead))
    expires_at = NOW + lifetime

    due = policy.due_at(account, version, make_refreshed(expires_at=expires_at))

    assert due <= expires_at - policy.min_lead or lifetime * (1 - policy.earliest) <= policy.min_lead
    assert due < expires_at


@given(account=accounts, version=versions, lifetime=ordinary_lifetimes)
def test_an_ordinary_token_is_refreshed_before_it_is_stale_for_consumers(
    account: AccountId, version: int, lifetime: timedelta
) -> None:
    """At its due time a token of 60 to 90 minutes is still fresh for a consumer without `min_ttl`."""
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
def test_refresh_on_is_the_due_time(refresh_in: timedelta, due_in: timedelta) -> None:
    """It counts if it is earlier than the worker's own time, and not before the first back-off."""
    refreshed = make_refreshed(refresh_on=NOW + refresh_in)

    assert POLICY.due_at(make_lease().account_id, 1, refreshed) == NOW + due_in


def test_the_spread_is_stable() -> None:
    """These numbers are the same in every process and release, and must never change."""
    account = AccountId(UUID("00000000-0000-0000-0000-000000000001"))

    assert [round(keyed_fraction(account, salt), 6) for salt in range(4)] == [0.742809, 0.698367, 0.51418, 0.234259]


@given(account=accounts, salt=versions)
def test_a_fraction_is_within_the_unit_interval(account: AccountId, salt: int) -> None:
    """One itself is excluded, so that accounts do not gather at the latest time."""
    assert 0 <= keyed_fraction(account, salt) < 1


def test_the_spread_is_even() -> None:
    """Ten thousand accounts of one second are not due again in one second."""
    fractions = [keyed_fraction(AccountId(UUID(int=n)), 1) for n in range(10_000)]

    tenths = [sum(low <= fraction * 10 < low + 1 for fraction in fractions) for low in range(10)]
    assert min(tenths) > 850
    assert max(tenths) < 1150


@pytest.mark.parametrize("of", ["neighbouring accounts", "neighbouring versions"])
def test_the_spread_is_uncorrelated(of: str) -> None:
    """An account that is early once is not early every time, and neighbours do not stay together."""
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
    """Microsoft demands five seconds. After fifteen minutes a service may have recovered."""
    assert timedelta(seconds=5) <= POLICY.backoff(account, attempt) <= timedelta(minutes=15)


@given(account=accounts, attempt=st.integers(min_value=1, max_value=6))
def test_a_backoff_grows_with_every_attempt(account: AccountId, attempt: int) -> None:
    """Below the cap it doubles, and the spread adds at most a half."""
    assert POLICY.backoff(account, attempt) < POLICY.backoff(account, attempt + 1)


@given(account=accounts, attempt=attempts)
def test_a_backoff_stays_within_bounds_that_only_rise(account: AccountId, attempt: int) -> None:
    """The spread adds at most a half to the doubled base. Both bounds end at the cap."""
    floor = min(timedelta(minutes=10), timedelta(seconds=5) * 2 ** min(attempt - 1, 20))

    assert floor <= POLICY.backoff(account, attempt) <= floor * 1.5


def test_backoffs_at_the_cap_are_spread() -> None:
    """A thousand accounts that fail together for hours must not be retried together."""
    waits = {POLICY.backoff(AccountId(UUID(int=n)), 50) for n in range(1000)}

    assert len(waits) > 990
    assert max(waits) - min(waits) > timedelta(minutes=4)


def test_a_success_makes_the_account_active_and_ends_every_streak() -> None:
    """The status before does not matter. The due time is that of the new version."""
    refreshed = make_refreshed()
    for status in (Status.ACTIVE, Status.REAUTH_REQUIRED, Status.BLOCKED):
        lease = make_lease(status=status, failure=failing("transient", count=9), version=4)

        plan = POLICY.plan(lease, refreshed, now=NOW)

        assert plan == AccountUpdate(
            account_id=lease.account_id,
            email=lease.email,
            based_on=4,
            lease_id=lease.lease_id,
            status=Status.ACTIVE,
            due_at=POLICY.due_at(lease.account_id, 5, refreshed),
        )


@given(outcome=temporary, status=st.sampled_from([Status.ACTIVE, Status.REAUTH_REQUIRED, Status.BLOCKED]))
def test_a_temporary_failure_keeps_the_status(outcome: Outcome, status: Status) -> None:
    """Throttled, transient and misconfigured outcomes say nothing about the grant."""
    plan = POLICY.plan(make_lease(status=status), outcome, now=NOW)

    assert plan.status is status
    assert plan.failure is not None
    assert NOW + timedelta(seconds=5) <= plan.due_at <= NOW + timedelta(minutes=15)


@given(
    outcome=temporary,
    count=st.integers(min_value=0, max_value=100),
    retry_after=st.none() | st.integers(min_value=0, max_value=86_400),
)
def test_the_next_attempt_is_not_before_retry_after(outcome: Outcome, count: int, retry_after: int | None) -> None:
    """It is at most a tenth later if the own back-off is shorter."""
    if not isinstance(outcome, Throttled | Transient):
        return
    at_least = None if retry_after is None else timedelta(seconds=retry_after)
    lease = make_lease()
    failure = failing(POLICY_KINDS[type(outcome)], count=count) if count else None

    plan = POLICY.plan(replace(lease, failure=failure), replace(outcome, retry_after=at_least), now=NOW)

    own = POLICY.backoff(lease.account_id, count + 1)
    demanded = at_least or timedelta(0)
    assert max(own, demanded) <= plan.due_at - NOW <= max(own, demanded * 1.1)


def test_accounts_with_the_same_retry_after_are_spread() -> None:
    """Exactly half an hour for each account after a storm of AADSTS50196 would cause the next storm."""
    throttled = Throttled(code="AADSTS50196", retry_after=timedelta(minutes=30))
    leases = [make_lease(account_id=AccountId(UUID(int=n))) for n in range(100)]

    minutes = {(POLICY.plan(lease, throttled, now=NOW).due_at - NOW) // timedelta(seconds=30) for lease in leases}

    assert minutes == set(range(60, 66))


POLICY_KINDS: dict[type, str] = {Throttled: "throttled", Transient: "transient"}


def test_a_certain_outcome_changes_the_status_at_once() -> None:
    """A revoked grant is tried again once a day."""
    plan = POLICY.plan(make_lease(), DEAD, now=NOW)

    assert plan.status is Status.REAUTH_REQUIRED
    assert timedelta(days=1) <= plan.due_at - NOW <= timedelta(days=1.1)


def test_a_blocked_account_is_tried_once_a_day() -> None:
    """An administrator may unblock it."""
    plan = POLICY.plan(make_lease(), Blocked(code="AADSTS53003"), now=NOW)

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
def test_a_tenant_that_is_unknown_for_a_day_needs_its_administrator(
    before: str, failing_for: timedelta, code: str, status: Status
) -> None:
    """Until then it may be a mistake, and its accounts are retried soon. Then they are blocked and tried once a day."""
    failure = replace(failing("misconfigured", count=90, since=NOW - failing_for), code=before)
    lease = make_lease(failure=failure)

    plan = POLICY.plan(lease, replace(GONE, code=code), now=NOW)

    assert plan.status is status
    assert (plan.due_at - NOW >= timedelta(days=1)) is (status is Status.BLOCKED)
    assert plan.failure is not None
    assert plan.failure.since == NOW - failing_for


def test_an_outage_does_not_count_for_the_day_of_a_tenant() -> None:
    """Only errors about the tenant count."""
    lease = make_lease(failure=failing("transient", count=90, since=NOW - timedelta(days=3)))
    blocked = replace(lease, status=Status.BLOCKED)

    assert POLICY.plan(lease, GONE, now=NOW).status is Status.ACTIVE
    assert POLICY.plan(blocked, GONE, now=NOW).due_at - NOW >= timedelta(days=1)


def test_daily_attempts_are_spread() -> None:
    """A thousand accounts that a tenant blocked in one minute are not tried in one minute the next day."""
    leases = [make_lease(account_id=AccountId(UUID(int=n))) for n in range(100)]

    due = {POLICY.plan(lease, Blocked(code="AADSTS53003"), now=NOW).due_at for lease in leases}

    assert len(due) == 100
    assert max(due) - min(due) > timedelta(hours=1)


def next_lease(lease: Lease, plan: AccountUpdate) -> Lease:
    """The next lease of the account, after the plan."""
    return replace(lease, status=plan.status, failure=plan.failure, strikes=plan.strikes, struck_at=plan.struck_at)


def strike_until_dead(lease: Lease, *, every: timedelta | None = None) -> list[tuple[datetime, Status]]:
    """Unproven outcomes, each at the planned time or at fixed intervals, until the status changes."""
    now, seen = NOW, list[tuple[datetime, Status]]()
    while not seen or seen[-1][1] is Status.ACTIVE:
        plan = POLICY.plan(lease, UNPROVEN, now=now)
        seen.append((now, plan.status))
        lease = next_lease(lease, plan)
        now = plan.due_at if every is None else now + every
    return seen


def test_three_strikes_over_ten_minutes_end_it() -> None:
    """By the schedule they come now, after five minutes and after ten."""
    assert strike_until_dead(make_lease()) == [
        (NOW, Status.ACTIVE),
        (NOW + timedelta(minutes=5), Status.ACTIVE),
        (NOW + timedelta(minutes=10), Status.REAUTH_REQUIRED),
    ]


@given(every=st.integers(min_value=1, max_value=3600))
def test_strikes_in_quick_succession_do_not_end_it(every: int) -> None:
    """It takes three strikes and ten minutes, so that an operator's retries cannot change the status."""
    seen = strike_until_dead(make_lease(), every=timedelta(seconds=every))

    assert len(seen) >= STRIKES
    assert seen[-1][0] - NOW >= STRIKES_OVER
    assert all(at - NOW < STRIKES_OVER or n < STRIKES for n, (at, _) in enumerate(seen[:-1], start=1))


@given(outcome=temporary)
def test_an_outage_in_between_does_not_change_the_strikes(outcome: Outcome) -> None:
    """A time-out proves nothing. A dead grant must be found even if outages come in between."""
    lease = make_lease(strikes=2, struck_at=NOW - timedelta(hours=1))

    between = POLICY.plan(lease, outcome, now=NOW)
    after = POLICY.plan(next_lease(lease, between), UNPROVEN, now=NOW + timedelta(minutes=5))

    assert (between.status, between.strikes) == (Status.ACTIVE, 2)
    assert after.status is Status.REAUTH_REQUIRED


def test_a_success_in_between_resets_the_strikes() -> None:
    """It proves that the grant is valid."""
    plan = POLICY.plan(make_lease(strikes=2, struck_at=NOW), make_refreshed(), now=NOW)

    assert (plan.failure, plan.strikes, plan.struck_at) == (None, 0, None)


def test_a_streak_has_its_first_instant_and_its_last_code() -> None:
    """Operators need the beginning and the current code."""
    first = streak(None, Transient(code="timeout"), now=NOW)
    second = streak(first, Transient(code="http_503"), now=NOW + timedelta(minutes=1))

    assert first == Failure(kind="transient", code="timeout", count=1, since=NOW)
    assert second == Failure(kind="transient", code="http_503", count=2, since=NOW)


def test_a_streak_of_another_class_is_another_streak() -> None:
    """After an outage, a wrong secret begins with the shortest back-off."""
    outage = failing("transient", count=7, since=NOW - timedelta(hours=2))

    assert streak(outage, Misconfigured(code="AADSTS7000215"), now=NOW) == Failure(
        kind="misconfigured", code="AADSTS7000215", count=1, since=NOW
    )


def test_throttling_and_outages_are_one_streak() -> None:
    """Otherwise accounts whose responses alternate between 429 and 503 would be retried every few seconds."""
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
        pytest.param(HOUR, timedelta(minutes=30), timedelta(minutes=29), True, id="a min_ttl that is met"),
        pytest.param(HOUR, timedelta(minutes=30), timedelta(minutes=30), False, id="a min_ttl that is just not met"),
        pytest.param(HOUR, timedelta(seconds=1), timedelta(0), True, id="alive is enough"),
        pytest.param(HOUR, timedelta(0), timedelta(0), False, id="dead is not enough"),
        pytest.param(HOUR, timedelta(0), timedelta(hours=-1), False, id="a negative min_ttl"),
        pytest.param(HOUR, timedelta(minutes=55), timedelta(hours=5), True, id="an impossible min_ttl: new"),
        pytest.param(HOUR, timedelta(minutes=54), timedelta(hours=5), False, id="an impossible min_ttl: a tenth gone"),
    ],
)
def test_a_token_is_fresh_if_it_lives_long_enough(
    lifetime: timedelta, left: timedelta, min_ttl: timedelta | None, fresh: bool
) -> None:
    """The default of `min_ttl` is five minutes, or a quarter of a short lifetime. At most it is 0.9 of the lifetime."""
    assert POLICY.is_fresh(token(lifetime), min_ttl, now=NOW + lifetime - left) is fresh


@given(lifetime=lifetimes, min_ttl=st.none() | st.integers(min_value=0, max_value=10**6))
def test_a_token_just_obtained_is_always_fresh(lifetime: timedelta, min_ttl: int | None) -> None:
    """Otherwise every read would cause a refresh, which brings no better token."""
    required = None if min_ttl is None else timedelta(seconds=min_ttl)

    assert POLICY.is_fresh(token(lifetime), required, now=NOW)


@given(lifetime=lifetimes, min_ttl=st.none() | st.integers(min_value=-10, max_value=10**6))
def test_a_stale_token_does_not_become_fresh_again(lifetime: timedelta, min_ttl: int | None) -> None:
    """After its end it is never fresh."""
    required = None if min_ttl is None else timedelta(seconds=min_ttl)
    instants = [NOW + lifetime * tenth / 10 for tenth in range(12)]

    fresh = [POLICY.is_fresh(token(lifetime), required, now=now) for now in instants]

    assert all(before or not after for before, after in pairwise(fresh))
    assert not any(fresh[10:])
