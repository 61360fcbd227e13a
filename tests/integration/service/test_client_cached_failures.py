"""A broken account costs nothing, no matter how many callers read it: its failure is cached."""

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
    """The codes of the errors that the reads raise."""
    codes = set()
    for _ in range(times):
        with pytest.raises(WorkerError) as raised:
            client.get(ANN)
        codes.add(raised.value.code)
    return codes


def test_a_hundred_thousand_reads_of_a_dead_account_cause_one_request(
    installation: Installation, client: TokenClient
) -> None:
    """A page polls for ten minutes: one request to Microsoft, and a read of Postgres per minute."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"))
    minutes, codes = 10, set[str]()

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        codes |= _ask(client, 1)
        first = len(statements)
        for _ in range(minutes):
            codes |= _ask(client, _MANY // minutes)
            installation.clock.now += MINUTE

    assert codes == {"needs_user"}
    assert installation.requests == 1
    assert len(statements) - first <= minutes
    assert commands["getrange"] <= 10 * minutes


def test_an_account_that_backs_off_causes_one_request_per_period(
    installation: Installation, client: TokenClient
) -> None:
    """The waits grow with each failure, and reads in between do not shorten them."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(RawAnswer(b"", 503))
    costs = []

    for _ in range(6):
        with pytest.raises(BackingOff) as raised:
            client.get(ANN)
        with counting.statements() as statements:
            assert _ask(client, 2_000) == {"backing_off"}
        costs.append((installation.requests, len(statements)))
        installation.clock.now += raised.value.retry_after

    assert [number for number, _ in costs] == [1, 2, 3, 4, 5, 6]
    assert sum(statements for _, statements in costs) <= 6


def test_without_a_local_cache_a_cached_failure_costs_one_read_of_redis(installation: Installation) -> None:
    """Another process, which has never read the account, needs no Postgres to raise the error."""
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
    assert commands == {"getrange": 50}


def test_a_cached_failure_is_valid_for_a_minute(installation: Installation) -> None:
    """An operator may have repaired the row by hand. The next read caches the failure anew."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"))
    installation.refresh_due()

    installation.clock.now += LIFETIME
    for expected in (1, 0):
        with counting.statements() as statements, pytest.raises(NeedsUser):
            installation.services.tokens.get(ANN)
        assert len(statements) == expected


@pytest.mark.parametrize("fault", [oauth_error("AADSTS50173"), RawAnswer(b"", 503)])
def test_a_live_token_is_served_from_an_entry_with_a_failure(
    installation: Installation, client: TokenClient, fault: Fault
) -> None:
    """The token was published with the failure, so a flush in between does no harm."""
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
def test_a_cached_failure_ends_with_its_cause(
    installation: Installation, client: TokenClient, mend: Callable[[Installation, TokenClient], None]
) -> None:
    """The account is served at once after a remedy."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"), times=1)
    with pytest.raises(NeedsUser):
        installation.services.tokens.get(ANN)

    mend(installation, client)

    assert installation.services.tokens.get(ANN).ttl(installation.clock()) > 50 * MINUTE


def test_a_failure_of_one_process_is_cached_only_locally(installation: Installation, client: TokenClient) -> None:
    """Only this process does not know the app registration. Other processes go on, and Postgres is spared."""
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


def test_while_postgres_is_down_a_cached_failure_keeps_its_back_off(
    installation: Installation, client: TokenClient, stores: Stack
) -> None:
    """It is kept for longer than a minute, because Postgres cannot be read and an early request would not help."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS90055", retry_after=300), times=1)
    _ask(client, 1)
    stores.postgres.stop()

    installation.clock.advance(minutes=4)
    assert _ask(client, 10) == {"backing_off"}
    installation.clock.advance(minutes=2)
    assert _ask(client, 1) == {"unavailable"}
    assert installation.requests == 1
