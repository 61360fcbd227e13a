"""Cached failures: how long they apply, to which requirements, and which errors they become."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.factories import NOW
from worker.domain.account import Status, account_id
from worker.domain.cache_entry import CachedFailure, CacheEntry
from worker.domain.cached_failure import applies, as_error, is_trusted, of_process, rejected
from worker.domain.errors import (
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientMisconfigured,
    NeedsUser,
    TokenRefused,
    Unavailable,
    WorkerError,
)
from worker.domain.token import AccessToken, Secret, TokenRequirement

ANN = "ann@contoso.com"
MINUTE = timedelta(minutes=1)
BUSY = CachedFailure(kind="throttled", code="http_429", retry_at=NOW + 5 * MINUTE, noted_at=NOW)
ENTRY = CacheEntry(account_id=account_id(ANN), email=ANN, status=Status.ACTIVE, version=3, failure=BUSY)
TOKEN = AccessToken(email=ANN, secret=Secret("t"), obtained_at=NOW, expires_at=NOW + MINUTE, version=3)
ANY, REPORT = TokenRequirement(), TokenRequirement(newer_than=3)


@pytest.mark.parametrize(
    ("retry_after", "age", "trusted"),
    [
        (5 * MINUTE, timedelta(0), True),
        (5 * MINUTE, timedelta(seconds=59), True),
        (5 * MINUTE, MINUTE, False),
        (timedelta(seconds=7), timedelta(seconds=6), True),
        (timedelta(seconds=7), timedelta(seconds=7), False),
        (None, timedelta(seconds=59), True),
        (None, MINUTE, False),
    ],
)
def test_a_failure_is_trusted_until_its_retry_and_for_a_minute_at_most(
    retry_after: timedelta | None, age: timedelta, *, trusted: bool
) -> None:
    """After that, a consumer reads Postgres again."""
    failure = replace(BUSY, retry_at=NOW + retry_after if retry_after else None)

    assert is_trusted(failure, ANY, now=NOW + age) is trusted


def test_without_postgres_a_failure_applies_until_its_retry() -> None:
    """No consumer can find out more."""
    assert applies(BUSY, ANY, now=NOW + 4 * MINUTE)
    assert not applies(BUSY, ANY, now=NOW + 5 * MINUTE)
    assert applies(replace(BUSY, retry_at=None), ANY, now=NOW + timedelta(days=1))
    assert not applies(None, ANY, now=NOW)


def test_a_rejection_applies_to_reports_only() -> None:
    """Other consumers get the token while it lives."""
    failure = rejected(until=NOW + 10 * MINUTE, now=NOW)

    assert is_trusted(failure, REPORT, now=NOW)
    assert not is_trusted(failure, ANY, now=NOW)
    assert not applies(failure, ANY, now=NOW)


def test_a_requirement_accepts_a_live_token_that_was_not_rejected() -> None:
    """While refreshes fail, such a token is better than none."""
    assert ANY.accepts(TOKEN, now=NOW)
    assert not ANY.accepts(TOKEN, now=NOW + MINUTE)
    assert not ANY.accepts(None, now=NOW)
    assert not REPORT.accepts(TOKEN, now=NOW)
    assert REPORT.accepts(replace(TOKEN, version=4), now=NOW)


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (ENTRY, BackingOff),
        (replace(ENTRY, failure=replace(BUSY, kind="misconfigured")), ClientMisconfigured),
        (replace(ENTRY, failure=rejected(until=NOW, now=NOW)), TokenRefused),
        (replace(ENTRY, status=Status.REAUTH_REQUIRED), NeedsUser),
        (replace(ENTRY, status=Status.BLOCKED), BlockedByAdmin),
        (replace(ENTRY, status=Status.PAUSED), AccountInactive),
        (replace(ENTRY, status=Status.DISCONNECTED), AccountInactive),
        (replace(ENTRY, status=Status.UNREADABLE), AccountInactive),
        (replace(ENTRY, use_oauth=False), AccountInactive),
        (replace(ENTRY, failure=None), Unavailable),
    ],
)
def test_a_failure_becomes_the_error_that_it_was(entry: CacheEntry, error: type[WorkerError]) -> None:
    """A reader in another process gets the same error."""
    raised = as_error(entry, ANN, now=NOW + MINUTE)

    assert type(raised) is error
    assert ANN in str(raised)
    if isinstance(raised, BackingOff):
        assert raised.retry_after == 4 * MINUTE


def test_a_failure_of_one_process_is_cached_for_seconds() -> None:
    """A shorter wait of the error itself counts. An error that only a person can end is not cached."""
    long, short = BackingOff(ANN, "http_503", 5 * MINUTE), BackingOff(ANN, "http_503", timedelta(seconds=2))
    notes = [
        of_process(error, now=NOW) for error in (long, short, ClientMisconfigured(ANN, "default", "AADSTS7000215"))
    ]

    waits = [note.retry_at - NOW for note in notes if note and note.retry_at]
    assert waits == [timedelta(seconds=10), timedelta(seconds=2), timedelta(seconds=10)]
    assert of_process(NeedsUser(ANN, "AADSTS50173"), now=NOW) is None
