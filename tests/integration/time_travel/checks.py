"""Reads and assertions of the time-travel tests."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import jwt

from tests.constants import MINUTE, NOT_PERSISTED, SECOND
from tests.integration.installation import Installation
from worker.domain.account import Status
from worker.domain.token import AccessToken
from worker.vault import Purpose

USUAL = (60 * MINUTE, 90 * MINUTE)  # Entra's range of default lifetimes of an access token


def read(installation: Installation, *emails: str) -> list[AccessToken]:
    """Read tokens as the application does before it opens a mailbox.

    By Microsoft's clock each token is live for as long as its expiry says.
    """
    tokens = [installation.services.tokens.get(email) for email in emails]
    for token in tokens:
        claims = jwt.decode(token.value, options={"verify_signature": False})
        assert claims["upn"] == token.email
        left = datetime.fromtimestamp(claims["exp"], UTC) - installation.emulator.clock()
        assert left > max(timedelta(0), token.ttl(installation.clock()) - SECOND)  # `exp` counts whole seconds
    return tokens


def refreshed_at(installation: Installation, email: str) -> tuple[datetime, ...]:
    return installation.emulator.statistics().by_account[email].refreshed_at


def triggers(installation: Installation) -> set[str]:
    """The causes of all refreshes so far: the schedule, a consumer, or an operator."""
    return {
        row[0]
        for row in installation.query("SELECT trigger FROM refresh_events UNION SELECT trigger FROM refresh_successes")
    }


def assert_signed_in_once(installation: Installation, *emails: str) -> None:
    """No user signed in again, and Microsoft refused no request.

    Microsoft's newest refresh token is in Postgres, and in no log line.
    """
    seen = installation.emulator.statistics()
    assert seen.failures == 0
    assert seen.successes == seen.refreshes
    logged = str(installation.logs)
    for account in map(installation.account, emails):
        assert (account.status, account.failure) == (Status.ACTIVE, None)
        newest = installation.emulator.newest_refresh_token(account.email)
        assert installation.stored_secret(Purpose.REFRESH_TOKEN, account.email) == newest
        assert newest not in logged


def assert_refreshed_by_schedule(installation: Installation, *emails: str) -> None:
    """Besides, the schedule caused every refresh, and Postgres stored each result at once."""
    assert_signed_in_once(installation, *emails)
    assert triggers(installation) <= {"schedule"}
    assert installation.logged(NOT_PERSISTED) == []


def assert_no_early_refresh(installation: Installation, lifetime: timedelta, *emails: str) -> None:
    """No token was replaced in the first half of its life."""
    for email in emails:
        instants = refreshed_at(installation, email)
        assert all(later - earlier >= lifetime / 2 for earlier, later in pairwise(instants))
