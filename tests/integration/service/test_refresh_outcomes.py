"""The effect of each of the six outcomes on the row, on refresh_events and on the cache."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, DAY, HOUR, MINUTE, PERSISTED, SECOND
from tests.integration.installation import Installation
from worker.devkit.emulator import Fault, Hang, RawAnswer, oauth_error
from worker.domain.account import Account, Failure, Status, account_id
from worker.domain.token import Sealed, as_text
from worker.vault import Purpose

_CLAIMS = '{"access_token":{"essential":true}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A refusal and its effect. ``wait`` is the shortest and the longest time until the next attempt."""

    fault: Fault
    kind: str
    code: str
    wait: tuple[timedelta, timedelta]
    status: Status = Status.ACTIVE
    claims: str | None = None


_SOON = (5 * SECOND, 7.5 * SECOND)
_DAILY = (DAY, 1.1 * DAY)
FAILED = [
    Failed(
        fault=oauth_error("AADSTS90055", retry_after=90),
        kind="throttled",
        code="AADSTS90055",
        wait=(90 * SECOND, 99 * SECOND),
    ),
    Failed(fault=oauth_error("AADSTS50196"), kind="throttled", code="AADSTS50196", wait=(30 * MINUTE, 33 * MINUTE)),
    Failed(fault=RawAnswer(b"", 503), kind="transient", code="http_503", wait=_SOON),
    Failed(fault=RawAnswer(b"", 503, retry_after=3600), kind="transient", code="http_503", wait=(HOUR, 66 * MINUTE)),
    Failed(fault=RawAnswer(b"", 429, retry_after=1), kind="throttled", code="http_429", wait=_SOON),
    Failed(
        fault=oauth_error("AADSTS50076", claims=_CLAIMS),
        kind="reauth_required",
        code="AADSTS50076",
        wait=_DAILY,
        status=Status.REAUTH_REQUIRED,
        claims=_CLAIMS,
    ),
    Failed(
        fault=oauth_error("AADSTS999999"),
        kind="reauth_required",
        code="AADSTS999999",
        wait=(5 * MINUTE, 5 * MINUTE),
    ),
    Failed(fault=oauth_error("AADSTS53003"), kind="blocked", code="AADSTS53003", wait=_DAILY, status=Status.BLOCKED),
    Failed(fault=oauth_error("AADSTS7000215"), kind="misconfigured", code="AADSTS7000215", wait=_SOON),
]


def _name(failed: Failed) -> str:
    after = getattr(failed.fault, "retry_after", None)
    return failed.code + (f" after {after}" if after else "")


def _due_in(installation: Installation, account: Account) -> timedelta:
    assert account.due_at
    return account.due_at - installation.clock()


def test_new_tokens_are_in_the_row_the_event_and_the_cache(installation: Installation) -> None:
    """The result is as the storage contract of a refresh says."""
    installation.sign_in(ANN, due=True)
    spent = installation.emulator.newest_refresh_token(ANN)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    row = installation.account()
    assert (row.status, row.version, row.lease_until, row.failure) == (Status.ACTIVE, 2, None, None)
    assert (row.obtained_at, row.last_refreshed_at, row.refresh_token_issued_at) == (installation.clock(),) * 3
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == installation.emulator.newest_refresh_token(ANN) != spent
    entry = installation.cached()
    assert entry
    assert entry.token
    assert (entry.version, entry.status, entry.refresh_token) == (
        2,
        Status.ACTIVE,
        as_text(row.refresh_token or Sealed(b"")),
    )
    assert (entry.token.value, entry.token.expires_at) == (
        installation.stored_secret(Purpose.ACCESS_TOKEN),
        row.expires_at,
    )
    assert installation.logged(PERSISTED) == [ANN]


def test_a_refreshed_account_is_due_in_the_middle_of_its_token_s_life(installation: Installation) -> None:
    """The next sweep finds nothing due."""
    installation.sign_in(ANN, due=True, lifetime=HOUR)
    installation.refresh_due()

    assert 30 * MINUTE <= _due_in(installation, installation.account()) <= 42 * MINUTE
    assert installation.refresh_due() == {"leased": 0}


def test_an_event_describes_a_refresh_without_a_secret(installation: Installation) -> None:
    """The event has what Microsoft's support needs to trace a token, and no secret."""
    installation.sign_in(ANN)
    for _ in range(2):
        installation.services.on_demand.refresh_now(account_id(ANN))
        installation.clock.advance(hours=1)

    newest, oldest = installation.services.events.latest(account_id(ANN))
    assert (newest["trigger"], newest["outcome"], newest["code"]) == ("operator", "refreshed", "ok")
    assert newest["at"] == installation.clock() - HOUR
    assert newest["correlation_id"] != oldest["correlation_id"]
    assert newest["fingerprint_before"] == oldest["fingerprint_after"] != newest["fingerprint_after"]
    assert 0 <= newest["latency_ms"] < 15_000
    assert installation.services.events.latest(account_id(ANN), limit=1) == [newest]
    assert installation.emulator.newest_refresh_token(ANN) not in str([newest, oldest])


def test_a_plain_success_is_recorded_in_few_bytes(installation: Installation) -> None:
    """The schedule has refreshed a healthy account. Operators see when, why and how long it took."""
    installation.sign_in(ANN, BOB, due=True)
    for _ in range(2):
        installation.refresh_due()
        installation.clock.advance(hours=1)

    for email in (ANN, BOB):
        newest, oldest = installation.services.events.latest(account_id(email))
        assert (newest["trigger"], newest["outcome"], newest["code"]) == ("schedule", "refreshed", "ok")
        assert (newest["at"], oldest["at"]) == (installation.clock() - HOUR, installation.clock() - 2 * HOUR)
        assert 0 <= newest["latency_ms"] < 15_000
    assert installation.query("SELECT count(*) FROM refresh_events") == [(0,)]
    assert (
        installation.query("SELECT client, trigger, cardinality(refreshes) FROM refresh_successes")
        == [("default", "schedule", 2)] * 2
    )


def test_the_success_that_ends_a_failure_is_an_event(installation: Installation) -> None:
    """It changes the state, so it is kept as long as the failures."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(RawAnswer(b"", 503), times=1)
    installation.refresh_due()
    installation.clock.advance(minutes=1)
    installation.refresh_due()

    assert installation.query("SELECT outcome FROM refresh_events ORDER BY id") == [("transient",), ("refreshed",)]


def test_latency_is_the_time_that_microsoft_took(installation: Installation) -> None:
    """An operator who sees minutes there checks the network, not the database."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(Hang(0.2))

    installation.refresh_due()

    [line] = installation.services.events.latest(account_id(ANN))
    assert 200 <= line["latency_ms"] < 15_000


@pytest.mark.parametrize("failed", FAILED, ids=_name)
def test_a_refusal_changes_the_status_and_no_token(installation: Installation, failed: Failed) -> None:
    """Status, reason and due time change. Tokens and version stay, because nothing was issued.

    The cache contains the reason.
    """
    installation.sign_in(ANN)
    installation.clock.advance(minutes=50)
    before, cached = installation.account(), installation.cached()
    installation.emulator.add_fault(failed.fault)

    tally = installation.refresh_due()

    row = installation.account()
    assert tally == {"leased": 1, failed.kind: 1}
    assert (row.status, row.claims, row.lease_until) == (failed.status, failed.claims, None)
    assert row.failure == Failure(kind=failed.kind, code=failed.code, count=1, since=installation.clock())
    assert failed.wait[0] <= _due_in(installation, row) <= failed.wait[1]
    for name in ("access_token", "refresh_token", "version", "expires_at", "last_refreshed_at"):
        assert getattr(row, name) == getattr(before, name)
    entry = installation.cached()
    assert entry
    assert entry.failure
    assert (entry.failure.kind, entry.failure.code, entry.failure.claims) == (failed.kind, failed.code, failed.claims)
    assert cached == replace(entry, status=Status.ACTIVE, failure=None)


@pytest.mark.parametrize("failed", FAILED, ids=_name)
def test_a_refusal_is_recorded_as_an_event(installation: Installation, failed: Failed) -> None:
    """The event has the code, the correlation id, and the fingerprint of the refused token."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(failed.fault, times=1)
    installation.refresh_due()
    installation.sign_in(ANN)

    [line] = installation.services.events.latest(account_id(ANN))
    assert (line["outcome"], line["code"], line["trigger"]) == (failed.kind, failed.code, "schedule")
    assert line["correlation_id"]
    assert line["fingerprint_before"]
    assert line["fingerprint_after"] is None


@pytest.mark.parametrize("failed", FAILED, ids=_name)
def test_a_refusal_ends_with_the_next_success(installation: Installation, failed: Failed) -> None:
    """The account is refreshed at its due time, once Microsoft accepts the request."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(failed.fault, times=1)
    installation.refresh_due()
    installation.clock.now += _due_in(installation, installation.account()) - SECOND
    assert installation.refresh_due() == {"leased": 0}
    installation.clock.now += SECOND

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    row = installation.account()
    assert (row.status, row.failure, row.claims) == (Status.ACTIVE, None, None)


def test_the_summary_of_the_fleet_agrees_with_the_rows(installation: Installation) -> None:
    """It is the first value that an operator checks."""
    installation.sign_in("due@contoso.com", "blocked@contoso.com", due=True)
    installation.sign_in(ANN)
    installation.emulator.add_fault(oauth_error("AADSTS53003"), "blocked@contoso.com")
    installation.emulator.add_fault(RawAnswer(b"", 503), "due@contoso.com")
    installation.refresh_due()
    installation.clock.advance(seconds=8)

    summary = installation.services.events.summary()

    assert summary["accounts"] == {"active": 2, "blocked": 1}
    assert (summary["due"], summary["failing"], summary["expired"], summary["in_flight"]) == (1, 2, 1, 0)


def test_old_events_are_pruned(installation: Installation) -> None:
    """Failures are kept for thirty days, which is longer than any support case, and plain successes for two."""
    ledger = installation.services.events
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS53003"), ANN)
    assert ledger.maintain() == 0
    installation.refresh_due()
    installation.clock.advance(days=20)
    ledger.maintain()
    assert ledger.latest(account_id(BOB)) == []
    installation.refresh_due()
    assert [line["at"] for line in ledger.latest(account_id(ANN))] == [
        installation.clock(),
        installation.clock() - 20 * DAY,
    ]
    installation.clock.advance(days=11)

    ledger.maintain()

    assert [line["at"] for line in ledger.latest(account_id(ANN))] == [installation.clock() - 11 * DAY]
