"""No given lifetime keeps an account from being refreshed: Microsoft's tokens live for 28 hours at most."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.constants import ANN, BOB, HOUR
from tests.integration.imports import import_lines
from tests.integration.installation import Installation
from worker.client import TokenClient
from worker.devkit.emulator import Tampered
from worker.domain.errors import InvalidInput
from worker.domain.token import LONGEST_LIFETIME

FAR = datetime(9999, 12, 31, tzinfo=UTC)
TOO_LATE = "expires_at is more than 48 hours away; no access token lives so long"


@pytest.mark.parametrize("spelling", ["ISO 8601", "seconds", "milliseconds"])
def test_an_import_refuses_a_token_that_lives_too_long(installation: Installation, spelling: str) -> None:
    """Milliseconds in place of seconds are the usual mistake; those of today are the year 58,000."""
    late = installation.clock() + LONGEST_LIFETIME + timedelta(seconds=1)
    given = {"ISO 8601": FAR.isoformat(), "seconds": late.timestamp(), "milliseconds": late.timestamp() * 1000}
    line = {"email": ANN, "refresh_token": "r", "access_token": "a", "expires_at": given[spelling]}

    stored, [bad] = import_lines(
        installation.services.accounts, json.dumps(line), json.dumps({**line, "email": BOB, "expires_at": None})
    )

    assert (stored, bad.number) == (1, 1)
    assert bad.reason == TOO_LATE
    assert [account.email for account in installation.accounts()] == [BOB]


@pytest.mark.parametrize(
    ("expires_at", "reason"),
    [(FAR, TOO_LATE), (datetime.max.replace(tzinfo=UTC), TOO_LATE), (datetime(2026, 3, 2, 10), "no time zone")],  # noqa: DTZ001 - the mistake
    ids=["year 9999", "the last instant", "naive"],
)
def test_save_refuses_a_token_that_lives_too_long(
    installation: Installation, expires_at: datetime, reason: str
) -> None:
    """It replaces nothing."""
    installation.sign_in(ANN)
    before, grant = installation.account(), installation.grant(ANN)

    with pytest.raises(InvalidInput, match=reason):
        installation.services.accounts.save([replace(grant, expires_at=expires_at)])
    with (
        TokenClient(installation.settings, utcnow=installation.clock) as client,
        pytest.raises(InvalidInput, match=reason),
    ):
        client.save(ANN, refresh_token="r", access_token="a", expires_at=expires_at)

    assert installation.account() == before


def test_the_longest_lifetime_is_accepted(installation: Installation) -> None:
    installation.services.accounts.save(
        [replace(installation.grant(ANN), expires_at=installation.clock() + LONGEST_LIFETIME)]
    )

    due = installation.account().due_at
    assert due
    assert due < installation.clock() + LONGEST_LIFETIME


@pytest.mark.parametrize("seconds", [10**12, "1e300", 10**400], ids=["a large number", "a float", "a huge number"])
def test_a_lifetime_from_the_identity_server_is_capped(installation: Installation, seconds: object) -> None:
    """The token is good, so it is stored; its account is refreshed within two days."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(Tampered({"expires_in": seconds}))

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    account = installation.account()
    assert account.expires_at == installation.clock() + LONGEST_LIFETIME
    assert account.due_at
    assert account.due_at < account.expires_at


def test_a_token_that_an_earlier_version_has_stored_is_replaced_by_the_next_read(installation: Installation) -> None:
    """Its entry in Redis says the same."""
    installation.sign_in(ANN)
    installation.query("UPDATE mail_credentials SET token_expiry = :far, refresh_due_at = :far", far=FAR)
    installation.services.redis.flushdb()

    token = installation.services.tokens.get(ANN)

    assert token.version == 2
    assert token.ttl(installation.clock()) < 2 * HOUR
    assert installation.account().due_at != FAR
