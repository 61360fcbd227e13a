"""The end of a grant, in examples and by properties."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import NOW
from worker.domain.account import Account, MailServers, Status, account_id, grant_expires_at
from worker.domain.token import Sealed

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

instants = st.integers(min_value=-400 * 24, max_value=400 * 24).map(lambda hours: NOW + hours * HOUR)
lifetimes = st.integers(min_value=1, max_value=200 * 24).map(lambda hours: hours * HOUR)


def make_account(**changes: Any) -> Account:
    account = Account(
        id=account_id("ann@contoso.com"),
        email="ann@contoso.com",
        client="default",
        authority=None,
        scopes=(),
        use_oauth=True,
        mail=MailServers(),
        access_token=None,
        refresh_token=Sealed(b"sealed"),
        obtained_at=None,
        expires_at=None,
        refresh_token_issued_at=None,
        version=1,
        status=Status.ACTIVE,
        due_at=NOW,
        lease_until=None,
        failure=None,
        claims=None,
        last_refreshed_at=None,
        signed_in_at=NOW,
        grant_lifetime=None,
    )
    return replace(account, **changes)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param({}, NOW + 90 * DAY, id="never used: 90 days from the sign-in"),
        pytest.param({"last_refreshed_at": NOW + 7 * DAY}, NOW + 97 * DAY, id="every use starts the count again"),
        pytest.param({"last_refreshed_at": NOW - 7 * DAY}, NOW + 90 * DAY, id="a use before the sign-in is history"),
        pytest.param({"grant_lifetime": DAY}, NOW + DAY, id="a single page app's 24 hours"),
        pytest.param(
            {"grant_lifetime": 30 * DAY, "last_refreshed_at": NOW + 29 * DAY}, NOW + 30 * DAY, id="use does not help"
        ),
        pytest.param({"grant_lifetime": 200 * DAY}, NOW + 90 * DAY, id="the earlier of the two"),
        pytest.param(
            {"grant_lifetime": 100 * DAY, "last_refreshed_at": NOW + 50 * DAY}, NOW + 100 * DAY, id="the age, later"
        ),
        pytest.param({"refresh_token": None}, None, id="no grant"),
        pytest.param({"signed_in_at": None}, None, id="unknown"),
        pytest.param(
            {"signed_in_at": None, "last_refreshed_at": NOW, "grant_lifetime": DAY}, NOW + 90 * DAY, id="age unknown"
        ),
    ],
)
def test_a_grant_expires(stored: dict[str, Any], expected: datetime | None) -> None:
    """`list --expiring` shows this, so that users can sign in before the mail stops."""
    assert grant_expires_at(make_account(**stored)) == expected


@given(signed_in_at=instants, used_at=st.none() | instants, lifetime=st.none() | lifetimes)
def test_a_grant_ends_by_its_age_or_after_90_days_without_use(
    signed_in_at: datetime, used_at: datetime | None, lifetime: timedelta | None
) -> None:
    """The earlier of the two is the end."""
    dies = grant_expires_at(make_account(signed_in_at=signed_in_at, last_refreshed_at=used_at, grant_lifetime=lifetime))

    by_age = signed_in_at + lifetime if lifetime else None
    by_silence = max(signed_in_at, used_at or signed_in_at) + 90 * DAY
    assert dies == min(end for end in (by_age, by_silence) if end)


@given(signed_in_at=instants, used_at=instants, later=lifetimes)
def test_using_a_grant_never_shortens_its_life(signed_in_at: datetime, used_at: datetime, later: timedelta) -> None:
    """A refresh extends it."""
    before = grant_expires_at(make_account(signed_in_at=signed_in_at, last_refreshed_at=used_at))
    after = grant_expires_at(make_account(signed_in_at=signed_in_at, last_refreshed_at=used_at + later))

    assert before is not None
    assert after is not None
    assert before <= after
