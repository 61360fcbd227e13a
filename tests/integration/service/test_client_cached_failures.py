"""A broken account costs nothing, however many ask: what is wrong with it is noted where everybody looks first."""

from collections.abc import Callable

import pytest

from tests.constants import ANN, MINUTE
from tests.integration import counting
from tests.integration.installation import Installation
from worker.client import BackingOff, ClientMisconfigured, NeedsUser, TokenClient, WorkerError
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.devkit.stack import Stack
from worker.domain.cached_failure import LIFETIME
from worker.domain.errors import AccountInactive

_MANY = 100_000


def _ask(client: TokenClient, times: int) -> set[str]:
    """What those who ask are told."""
    told = set()
    for _ in range(times):
        with pytest.raises(WorkerError) as raised:
            client.get(ANN)
        told.add(raised.value.code)
    return told


def test_a_dead_account_asked_a_hundred_thousand_times_is_asked_about_once(
    installation: Installation, client: TokenClient
) -> None:
    """Ten minutes of a page that polls: one question to Microsoft, a look at Postgres a minute."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"))
    minutes, told = 10, set[str]()

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        told |= _ask(client, 1)
        first = len(statements)
        for _ in range(minutes):
            told |= _ask(client, _MANY // minutes)
            installation.clock.now += MINUTE

    assert told == {"needs_user"}
    assert installation.requests == 1
    assert len(statements) - first <= minutes
    assert commands["get"] <= 10 * minutes


def test_an_account_that_backs_off_is_asked_about_once_per_period(
    installation: Installation, client: TokenClient
) -> None:
    """The waits grow as the schedule has them, and nobody who asks meanwhile shortens them."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(RawAnswer(b"", 503))
    asked = []

    for _ in range(6):
        with pytest.raises(BackingOff) as raised:
            client.get(ANN)
        with counting.statements() as statements:
            assert _ask(client, 2_000) == {"backing_off"}
        asked.append((installation.requests, len(statements)))
        installation.clock.now += raised.value.retry_after

    assert [number for number, _ in asked] == [1, 2, 3, 4, 5, 6]
    assert sum(statements for _, statements in asked) <= 6


def test_without_a_memory_it_is_one_look_at_redis(installation: Installation) -> None:
    """Another process that has never heard of the account, and needs no Postgres to say what is wrong."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50076", claims='{"access_token":{}}'))
    installation.refresh_due()

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        for _ in range(49):
            with pytest.raises(NeedsUser):
                installation.services.tokens.get(ANN)
        with pytest.raises(NeedsUser) as raised:
            installation.services.tokens.get(ANN)

    assert (raised.value.reason, raised.value.claims) == ("AADSTS50076", '{"access_token":{}}')
    assert statements == []
    assert commands == {"get": 50}


def test_a_note_is_believed_for_a_minute(installation: Installation) -> None:
    """Somebody may have mended the row by hand; whoever looks then notes it anew."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"))
    installation.refresh_due()

    installation.clock.now += LIFETIME
    for expected in (1, 0):
        with counting.statements() as statements, pytest.raises(NeedsUser):
            installation.services.tokens.get(ANN)
        assert len(statements) == expected


@pytest.mark.parametrize("fault", [oauth_error("AADSTS50173"), RawAnswer(b"", 503)])
def test_a_token_that_lives_is_served_from_a_noted_entry(
    installation: Installation, client: TokenClient, fault: Fault
) -> None:
    """It was published with the failure, so a flush in between does no harm."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=56)
    installation.services.redis.flushall()
    installation.emulator.add_fault(fault)
    installation.refresh_due()

    with counting.statements() as statements:
        assert client.get(ANN).ttl(installation.clock()) == 4 * MINUTE
    assert statements == []


def _resume(installation: Installation, _client: TokenClient) -> None:
    installation.services.accounts.resume(ANN)


def _sign_in(installation: Installation, _client: TokenClient) -> None:
    installation.sign_in(ANN)


def _pause_and_resume(installation: Installation, _client: TokenClient) -> None:
    installation.services.accounts.pause(ANN)
    with pytest.raises(AccountInactive, match="paused"):
        installation.services.tokens.get(ANN)
    installation.services.accounts.resume(ANN)


@pytest.mark.parametrize("mend", [_resume, _sign_in, _pause_and_resume])
def test_a_note_does_not_outlive_its_cause(
    installation: Installation, client: TokenClient, mend: Callable[[Installation, TokenClient], None]
) -> None:
    """Who has just been helped is served at once."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"), times=1)
    with pytest.raises(NeedsUser):
        installation.services.tokens.get(ANN)

    mend(installation, client)

    assert installation.services.tokens.get(ANN).ttl(installation.clock()) > 50 * MINUTE


def test_a_failure_of_one_process_is_noted_in_its_memory_alone(installation: Installation, client: TokenClient) -> None:
    """An app registration that only this process does not know: the others go on, and Postgres is spared."""
    installation.sign_in(ANN, due=True)
    installation.query("UPDATE mail_credentials SET client = 'theirs'")

    assert _ask(client, 1) == {ClientMisconfigured.code}
    with counting.statements() as statements:
        assert _ask(client, 100) == {ClientMisconfigured.code}
    assert statements == []
    entry = installation.cached()
    assert entry is None or entry.failure is None
    installation.query("UPDATE mail_credentials SET client = 'default'")
    installation.clock.advance(seconds=10)
    assert client.get(ANN).version == 2


def test_while_postgres_is_away_a_note_keeps_its_back_off(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """Longer than a minute: nobody can look, and asking Microsoft early would not help."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS90055", retry_after=300), times=1)
    _ask(client, 1)
    stores.postgres.stop()

    installation.clock.advance(minutes=4)
    assert _ask(client, 10) == {"backing_off"}
    installation.clock.advance(minutes=2)
    assert _ask(client, 1) == {"unavailable"}
    assert installation.requests == 1
