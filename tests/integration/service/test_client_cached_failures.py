"""A broken account costs nothing, however many ask: what is wrong with it is noted where everybody looks first."""

from collections.abc import Callable

import pytest

from tests.integration.service import counting
from tests.integration.service.house import ANN, MINUTE, House
from worker.client import BackingOff, ClientMisconfigured, NeedsUser, TokenClient, WorkerError
from worker.devkit.emulator import Fault, RawAnswer, oauth_error
from worker.devkit.stack import Stack
from worker.domain.cached_failure import TRUST
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


def test_a_dead_account_asked_a_hundred_thousand_times_is_asked_about_once(house: House, client: TokenClient) -> None:
    """Ten minutes of a page that polls: one question to Microsoft, a look at Postgres a minute."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50173"))
    minutes, told = 10, set[str]()

    with counting.sql() as statements, counting.commands(house.services.redis) as commands:
        told |= _ask(client, 1)
        first = len(statements)
        for _ in range(minutes):
            told |= _ask(client, _MANY // minutes)
            house.clock.now += MINUTE

    assert told == {"needs_user"}
    assert house.asked() == 1
    assert len(statements) - first <= minutes
    assert commands["get"] <= 10 * minutes


def test_an_account_that_backs_off_is_asked_about_once_per_period(house: House, client: TokenClient) -> None:
    """The waits grow as the schedule has them, and nobody who asks meanwhile shortens them."""
    house.enrol(ANN)
    house.emulator.add_fault(RawAnswer(b"", 503))
    asked = []

    for _ in range(6):
        with pytest.raises(BackingOff) as raised:
            client.get(ANN)
        with counting.sql() as statements:
            assert _ask(client, 2_000) == {"backing_off"}
        asked.append((house.asked(), len(statements)))
        house.clock.now += raised.value.retry_after

    assert [number for number, _ in asked] == [1, 2, 3, 4, 5, 6]
    assert sum(statements for _, statements in asked) <= 6


def test_without_a_memory_it_is_one_look_at_redis(house: House) -> None:
    """Another process that has never heard of the account, and needs no Postgres to say what is wrong."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50076", claims='{"access_token":{}}'))
    house.services.refresher.refresh_due()

    with counting.sql() as statements, counting.commands(house.services.redis) as commands:
        for _ in range(49):
            with pytest.raises(NeedsUser):
                house.services.tokens.get(ANN)
        with pytest.raises(NeedsUser) as raised:
            house.services.tokens.get(ANN)

    assert (raised.value.reason, raised.value.claims) == ("AADSTS50076", '{"access_token":{}}')
    assert statements == []
    assert commands == {"get": 50}


def test_a_note_is_believed_for_a_minute(house: House) -> None:
    """Somebody may have mended the row by hand; whoever looks then notes it anew."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50173"))
    house.services.refresher.refresh_due()

    house.clock.now += TRUST
    for expected in (1, 0):
        with counting.sql() as statements, pytest.raises(NeedsUser):
            house.services.tokens.get(ANN)
        assert len(statements) == expected


@pytest.mark.parametrize("fault", [oauth_error("AADSTS50173"), RawAnswer(b"", 503)])
def test_a_token_that_lives_is_served_from_a_noted_entry(house: House, client: TokenClient, fault: Fault) -> None:
    """It was published with the failure, so a flush in between does no harm."""
    house.sign_in(ANN)
    house.clock.advance(minutes=56)
    house.services.redis.flushall()
    house.emulator.add_fault(fault)
    house.services.refresher.refresh_due()

    with counting.sql() as statements:
        assert client.get(ANN).ttl(house.clock()) == 4 * MINUTE
    assert statements == []


def _resume(house: House, _client: TokenClient) -> None:
    house.services.accounts.resume(ANN)


def _sign_in(house: House, _client: TokenClient) -> None:
    house.sign_in(ANN)


def _pause_and_resume(house: House, _client: TokenClient) -> None:
    house.services.accounts.pause(ANN)
    with pytest.raises(AccountInactive, match="paused"):
        house.services.tokens.get(ANN)
    house.services.accounts.resume(ANN)


@pytest.mark.parametrize("mend", [_resume, _sign_in, _pause_and_resume])
def test_a_note_does_not_outlive_its_cause(
    house: House, client: TokenClient, mend: Callable[[House, TokenClient], None]
) -> None:
    """Who has just been helped is served at once."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50173"), times=1)
    with pytest.raises(NeedsUser):
        house.services.tokens.get(ANN)

    mend(house, client)

    assert house.services.tokens.get(ANN).ttl(house.clock()) > 50 * MINUTE


def test_what_stops_one_process_is_noted_in_its_memory_alone(house: House, client: TokenClient) -> None:
    """An app registration that only this process does not know: the others go on, and Postgres is spared."""
    house.enrol(ANN)
    house.query("UPDATE mail_credentials SET client = 'theirs'")

    assert _ask(client, 1) == {ClientMisconfigured.code}
    with counting.sql() as statements:
        assert _ask(client, 100) == {ClientMisconfigured.code}
    assert statements == []
    entry = house.cached()
    assert entry is None or entry.problem is None
    house.query("UPDATE mail_credentials SET client = 'default'")
    house.clock.advance(seconds=10)
    assert client.get(ANN).version == 2


def test_while_postgres_is_away_a_note_keeps_its_back_off(house: House, client: TokenClient, stores: Stack) -> None:
    """Longer than a minute: nobody can look, and asking Microsoft early would not help."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS90055", retry_after=300), times=1)
    _ask(client, 1)
    stores.postgres.stop()

    house.clock.advance(minutes=4)
    assert _ask(client, 10) == {"backing_off"}
    assert house.asked() == 1
    house.clock.advance(minutes=2)
    assert client.get(ANN).version == 2
