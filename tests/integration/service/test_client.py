"""The client: what its local cache holds, what a read costs, and what happens after it is closed."""

import statistics
import sys
import time
from collections.abc import Callable

import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE
from tests.integration import counting
from tests.integration.installation import Installation
from worker.client import ClientClosed, InvalidInput, MailServers, TokenClient, UnknownAccount
from worker.domain.account import account_id
from worker.domain.errors import AccountInactive
from worker.domain.token import AccessToken

_LOOSELY = 6  # times a bare GET; it needs about 2, and a busy machine must not make this fail
_SECONDS = 11  # longer than the ten of the local cache


def test_a_read_is_one_command_and_the_next_is_none(installation: Installation, client: TokenClient) -> None:
    """Mail products read a token before every command that they send. For seconds it is served from the local cache."""
    installation.sign_in(ANN)
    client.get(ANN)  # opens the connection
    installation.clock.advance(seconds=_SECONDS)

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        first = client.get(ANN)
        others = {client.get(ANN) for _ in range(100)}

    assert commands == {"getrange": 1}
    assert others == {first}
    assert statements == []


def test_a_read_costs_little_more_than_a_bare_get(installation: Installation, client: TokenClient) -> None:
    """Both are measured alternately, so that other load on the machine affects both."""
    installation.sign_in(ANN)
    redis, key = installation.services.redis, f"token-worker:entry:{account_id(ANN)}"

    def read() -> None:  # reads through services without a local cache
        installation.services.tokens.get(ANN)

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


def test_a_token_in_the_local_cache_is_judged_by_its_expiry(installation: Installation, client: TokenClient) -> None:
    """A requirement for a longer life is not satisfied from the local cache, nor by a token that is about to expire."""
    installation.sign_in(ANN, lifetime=8 * MINUTE)
    client.get(ANN)
    installation.clock.advance(minutes=5, seconds=59)
    before = client.get(ANN)
    installation.clock.advance(seconds=2)

    assert client.recall(ANN) is None
    assert client.get(ANN).version == before.version + 1
    assert installation.requests == 1


def test_a_change_by_another_process_is_seen_within_seconds(installation: Installation, client: TokenClient) -> None:
    """Until then the local cache serves the previous value."""
    installation.sign_in(ANN)
    client.get(ANN)
    installation.services.accounts.disconnect(ANN)

    installation.clock.advance(seconds=9)
    assert client.get(ANN).version == 1
    installation.clock.advance(seconds=1)
    with pytest.raises(AccountInactive):
        client.get(ANN)


def test_a_change_by_the_client_itself_is_seen_at_once(installation: Installation, client: TokenClient) -> None:
    """The caller that has just signed in or disconnected sees the result."""
    first, second = installation.grant(ANN), installation.grant(ANN)
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


def test_an_account_is_loaded_with_its_servers(installation: Installation, client: TokenClient) -> None:
    """The cache alone has all that a mail client needs."""
    servers = MailServers(imap_host="imap.example", pop_host="pop.example", pop_port=1995)
    client.save(ANN, refresh_token=installation.grant(ANN).refresh_token.reveal(), mail=servers)
    client.load(ANN)
    installation.sign_in(ANN)  # another sign-in, which does not contain servers
    installation.clock.advance(seconds=_SECONDS)

    with counting.statements() as statements:
        account = client.load(ANN, min_ttl=60)

    assert (account.email, account.servers, account.use_oauth) == (ANN, servers, True)
    assert account.token
    assert account.token.ttl(installation.clock()) > 50 * MINUTE
    assert statements == []


def test_a_login_name_is_stored_beside_the_address_and_kept(installation: Installation, client: TokenClient) -> None:
    """Mail servers expect the user principal name, which may differ from the address."""
    servers = MailServers(imap_host="imap.example")
    token = installation.grant(ANN).refresh_token.reveal()
    client.save(ANN, refresh_token=token, mail=servers)
    client.save(ANN, refresh_token=token, login_name="ann@example.onmicrosoft.com")
    client.save(ANN, refresh_token=token)

    account = client.load(ANN)

    assert account.login_name == "ann@example.onmicrosoft.com"
    assert account.servers.imap_host == "imap.example"


def test_labels_are_stored_kept_and_taken_away(installation: Installation, client: TokenClient) -> None:
    """A sign-in knows nothing of the labels that an import has set."""
    token = installation.grant(ANN).refresh_token.reveal()

    def labels_after(labels: list[str] | None) -> tuple[str, ...]:
        client.save(ANN, refresh_token=token, labels=labels)
        return installation.account().labels

    assert labels_after(None) == ()
    assert labels_after(["EU", "customer=42"]) == ("customer=42", "eu")
    assert labels_after(None) == ("customer=42", "eu")
    assert labels_after([]) == ()
    with pytest.raises(InvalidInput, match="label"):
        labels_after(["two words"])


def test_without_a_login_name_it_is_the_address(installation: Installation, client: TokenClient) -> None:
    installation.sign_in(ANN)
    assert client.load(ANN).login_name == ANN


@pytest.mark.parametrize("name", ["ann\x01auth=x", "ann\nsmith", "x" * 321, "änn@contoso.com"])
def test_a_malformed_login_name_is_refused(installation: Installation, client: TokenClient, name: str) -> None:
    token = installation.grant(ANN).refresh_token.reveal()
    with pytest.raises(InvalidInput, match="login_name") as caught:
        client.save(ANN, refresh_token=token, login_name=name)
    assert name not in str(caught.value)


@pytest.mark.parametrize("refresh", ["by the schedule", "from Postgres"])
def test_servers_survive_a_refresh_and_a_flush(installation: Installation, client: TokenClient, refresh: str) -> None:
    """Each writer of an entry writes all of it."""
    servers = MailServers(smtp_host="smtp.example", smtp_port=2525, login_name="ann@example.onmicrosoft.com")
    client.save(ANN, refresh_token=installation.grant(ANN).refresh_token.reveal(), mail=servers)
    installation.refresh_due()
    if refresh == "from Postgres":
        installation.services.redis.flushall()
    installation.clock.advance(seconds=_SECONDS)

    assert client.load(ANN).servers == servers


def test_an_account_with_a_password_is_loaded_without_a_token(installation: Installation, client: TokenClient) -> None:
    """The product stores the password elsewhere, and the servers are here. The read costs SQL once a minute."""
    installation.sign_in(ANN, due=True)
    installation.query("UPDATE mail_credentials SET use_oauth = false, refresh_due_at = NULL")

    with counting.statements() as statements:
        accounts = [client.load(ANN) for _ in range(10)]

    assert {(account.use_oauth, account.token) for account in accounts} == {(False, None)}
    assert len(statements) == 1
    with pytest.raises(AccountInactive, match="not using OAuth"):
        client.get(ANN)
    with pytest.raises(UnknownAccount):
        client.load(BOB)


def test_a_closed_client_raises_an_error(installation: Installation) -> None:
    """Every method raises the same error. Closing the client again is no error."""
    installation.sign_in(ANN)
    client = TokenClient(installation.settings, utcnow=installation.clock)
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


def test_a_malformed_address_is_rejected(client: TokenClient) -> None:
    """No request is sent for it."""
    with pytest.raises(InvalidInput):
        client.get("ann")


def test_the_repr_of_a_token_hides_it(installation: Installation, client: TokenClient) -> None:
    """Neither in a log nor in a traceback."""
    installation.sign_in(ANN, lifetime=HOUR)
    token: AccessToken = client.get(ANN)

    assert token.value not in repr(token)
    assert token.value not in repr(client.load(ANN))
