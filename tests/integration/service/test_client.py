"""The client as such: what is in memory, what it costs, and that it ends when it is closed."""

import statistics
import sys
import time
from collections.abc import Callable

import pytest

from tests.integration.service import counting
from tests.integration.service.house import ANN, BOB, HOUR, MINUTE, House
from worker.client import ClientClosed, InvalidInput, MailServers, TokenClient, UnknownAccount
from worker.domain.account import account_id
from worker.domain.errors import AccountInactive
from worker.domain.token import AccessToken

_LOOSELY = 6  # times a bare GET; it is about 2, and a busy machine must not make this fail
_SECONDS = 11  # longer than the memory's ten


def test_a_read_is_one_command_and_the_next_is_none(house: House, client: TokenClient) -> None:
    """Mail products ask before every command they send; what was read seconds ago is still there."""
    house.sign_in(ANN)
    client.get(ANN)  # connects
    house.clock.advance(seconds=_SECONDS)

    with counting.sql() as statements, counting.commands(house.services.redis) as commands:
        first = client.get(ANN)
        others = {client.get(ANN) for _ in range(100)}

    assert commands == {"get": 1}
    assert others == {first}
    assert statements == []


def test_a_read_costs_little_more_than_a_bare_get(house: House, client: TokenClient) -> None:
    """Measured by turns, so that whatever else the machine does happens to both."""
    house.sign_in(ANN)
    redis, key = house.services.redis, f"token-worker:entry:{account_id(ANN)}"

    def read() -> None:  # by services without a memory
        house.services.tokens.get(ANN)

    pairs = [(_timed(read), _timed(lambda: redis.get(key))) for _ in range(500)]
    ours, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    client.get(ANN)
    remembered = statistics.median(_timed(lambda: client.get(ANN)) for _ in range(500))

    sys.stdout.write(
        f"get {ours * 1e6:.0f} us, {ours / bare:.1f} times a bare GET of {bare * 1e6:.0f} us;"
        f" from memory {remembered * 1e6:.1f} us\n"
    )
    assert ours < _LOOSELY * bare
    assert remembered < bare


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_what_is_remembered_is_still_judged_by_its_expiry(house: House, client: TokenClient) -> None:
    """A wish for more life is not answered from memory, and neither is a token that has become tight."""
    house.sign_in(ANN, lifetime=8 * MINUTE)
    client.get(ANN)
    house.clock.advance(minutes=5, seconds=59)
    before = client.get(ANN)
    house.clock.advance(seconds=2)

    assert client.recall(ANN) is None
    assert client.get(ANN).version == before.version + 1
    assert house.asked() == 1


def test_what_another_process_does_is_noticed_within_seconds(house: House, client: TokenClient) -> None:
    """Until then the memory serves what was true a moment ago."""
    house.sign_in(ANN)
    client.get(ANN)
    house.services.accounts.disconnect(ANN)

    house.clock.advance(seconds=9)
    assert client.get(ANN).version == 1
    house.clock.advance(seconds=1)
    with pytest.raises(AccountInactive):
        client.get(ANN)


def test_what_the_client_does_itself_is_seen_at_once(house: House, client: TokenClient) -> None:
    """Whoever has just signed in or withdrawn looks at the result."""
    first, second = house.grant(ANN), house.grant(ANN)
    for grant in (first, second):
        assert grant.access_token
        client.save(
            ANN,
            refresh_token=grant.refresh_token.reveal(),
            access_token=grant.access_token.reveal(),
            expires_at=grant.expires_at,
        )
        assert client.get(ANN).value == grant.access_token.reveal()

    client.disconnect(ANN)

    with pytest.raises(AccountInactive):
        client.get(ANN)


def test_an_account_is_loaded_with_its_servers(house: House, client: TokenClient) -> None:
    """All that a mail client needs, and from the cache alone."""
    servers = MailServers(imap_host="imap.example", pop_host="pop.example", pop_port=1995)
    client.save(ANN, refresh_token=house.grant(ANN).refresh_token.reveal(), mail=servers)
    client.load(ANN)
    house.sign_in(ANN)  # another sign-in says nothing of servers
    house.clock.advance(seconds=_SECONDS)

    with counting.sql() as statements:
        account = client.load(ANN, min_ttl=60)

    assert (account.email, account.servers, account.use_oauth) == (ANN, servers, True)
    assert account.token
    assert account.token.ttl(house.clock()) > 50 * MINUTE
    assert statements == []


@pytest.mark.parametrize("refresh", ["by the schedule", "from Postgres"])
def test_servers_survive_a_refresh_and_a_flush(house: House, client: TokenClient, refresh: str) -> None:
    """Whoever writes the entry writes all of it."""
    servers = MailServers(smtp_host="smtp.example", smtp_port=2525)
    client.save(ANN, refresh_token=house.grant(ANN).refresh_token.reveal(), mail=servers)
    house.services.refresher.refresh_due()
    if refresh == "from Postgres":
        house.services.redis.flushall()
    house.clock.advance(seconds=_SECONDS)

    assert client.load(ANN).servers == servers


def test_an_account_with_a_password_is_loaded_without_a_token(house: House, client: TokenClient) -> None:
    """The product has its password elsewhere; the servers are here. It costs SQL once a minute."""
    house.enrol(ANN)
    house.query("UPDATE mail_credentials SET use_oauth = false, refresh_due_at = NULL")

    with counting.sql() as statements:
        accounts = [client.load(ANN) for _ in range(10)]

    assert {(account.use_oauth, account.token) for account in accounts} == {(False, None)}
    assert len(statements) == 1
    with pytest.raises(AccountInactive, match="not using OAuth"):
        client.get(ANN)
    with pytest.raises(UnknownAccount):
        client.load(BOB)


def test_a_closed_client_says_so(house: House) -> None:
    """In a clear word, whatever is asked of it; closing it again is no mistake."""
    house.sign_in(ANN)
    client = TokenClient(house.settings, utcnow=house.clock)
    client.get(ANN)
    client.close()
    client.close()

    calls: list[Callable[[], object]] = [
        lambda: client.get(ANN),
        lambda: client.recall(ANN),
        lambda: client.get_many([ANN]),
        lambda: client.load(ANN),
        lambda: client.report_rejected(ANN, 1),
        lambda: client.disconnect(ANN),
        lambda: next(client.watch()),
    ]
    for call in calls:
        with pytest.raises(ClientClosed):
            call()


def test_what_cannot_be_an_address_is_refused(client: TokenClient) -> None:
    """Before anything is asked."""
    with pytest.raises(InvalidInput):
        client.get("ann")


def test_a_token_does_not_show_itself(house: House, client: TokenClient) -> None:
    """Neither in a log nor in a traceback."""
    house.sign_in(ANN, lifetime=HOUR)
    token: AccessToken = client.get(ANN)

    assert token.value not in repr(token)
    assert token.value not in repr(client.load(ANN))
