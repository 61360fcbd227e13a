"""A writer of one row in Postgres breaks that account. Its tokens are spent for no other purpose, and are sent to no
other server."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import SecretStr

from tests.constants import ANN, BOB
from tests.integration.earlier import unbind
from tests.integration.installation import Installation
from worker.client import TokenClient
from worker.domain.account import DEFAULT_CLIENT, MailServers, Status, account_id
from worker.domain.errors import AccountInactive, AlteredAccount, ConfigurationError, InvalidInput, UnreadableSecret
from worker.domain.mail_hosts import MailHostNotAllowed
from worker.service.accounts.key_rotation import KeyRotationReport
from worker.settings import ReaderSettings
from worker.vault import format_access_keys, generate_key

OWN = MailServers(imap_host="imap.example", smtp_host="smtp.example", pop_host="pop.example", login_name="ann")
#: Changes by a writer of the row. Each value is one that the program itself could have stored.
CHANGES = {
    "client": "client = 'fabrikam'",
    "authority": "authority = :authority",
    "scopes": "scopes = 'https://graph.microsoft.com/Files.ReadWrite.All'",
    "imap host": "imap_host = 'smtp.example'",
    "imap port": "imap_port = 1993",
    "smtp host": "smtp_host = NULL",
    "smtp port": "smtp_port = 465",
    "pop host": "pop_host = 'outlook.office365.com'",
    "pop port": "pop_port = 1995",
    "login name": "login_name = 'bob'",
    "no login name": "login_name = NULL",
    "address": "email = 'eve@contoso.com'",
}


@pytest.fixture(name="installation")
def _installation(installation: Installation) -> Installation:
    """Its workers have two app registrations, and are allowed to use two mail servers of their own."""
    settings = {
        "clients": {
            "fabrikam": {
                "client_id": installation.settings.client_id,
                "client_secret": installation.settings.client_secret,
                "authority": installation.settings.authority,
            }
        },
        "mail_hosts": "imap.example,smtp.example,pop.example",
    }
    changed = type(installation.settings).model_validate(installation.settings.model_dump() | settings)
    return replace(installation, settings=changed, services=installation.another_process(**settings))


def sign_in(installation: Installation, *emails: str, due: bool = False) -> None:
    grants = [replace(installation.grant(email, due=due), mail=OWN) for email in emails]
    installation.services.accounts.save(grants)


def alter(installation: Installation, change: str) -> None:
    """Change Ann's row. The cache is empty, so that the row is all there is."""
    tenant = installation.settings.authority.rpartition("/")[0] + "/another.example"
    installation.query(
        f"UPDATE mail_credentials SET {change} WHERE id = :id",
        id=account_id(ANN),
        **({"authority": tenant} if ":authority" in change else {}),
    )
    installation.services.redis.flushall()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_refresh_token_is_spent_only_on_the_terms_it_was_stored_with(installation: Installation, change: str) -> None:
    """The account is set aside, and the log names the cause. The others go on."""
    sign_in(installation, ANN, BOB, due=True)
    alter(installation, change)

    for client in (DEFAULT_CLIENT, "fabrikam"):
        installation.refresh_due(client)

    assert installation.requests == 1
    [status] = installation.query(
        "SELECT status, failure_code, lease_id FROM mail_credentials WHERE id = :id", id=account_id(ANN)
    )
    assert status == ("unreadable", "altered", None)
    [reason] = [entry["reason"] for entry in installation.logs if entry["event"].startswith("Refresh token cannot be")]
    assert "changed in Postgres beside this program" in reason
    assert installation.account(BOB).version == 2


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("keys", ["full", "access"])
def test_an_access_token_is_served_only_with_the_servers_it_was_stored_with(
    installation: Installation, change: str, keys: str
) -> None:
    """The row has a token that lives. A consumer without the rights to change anything finds out as well."""
    sign_in(installation, ANN)
    alter(installation, change)
    with consumer(installation, keys) as client:
        for read in (client.get, client.load):
            with pytest.raises(match="changed in Postgres beside this program"):
                read(ANN)
    assert installation.requests == 0


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_erased_access_token_helps_no_writer(installation: Installation, change: str) -> None:
    """A read then leads to a refresh, which finds out."""
    sign_in(installation, ANN)
    alter(installation, f"{change}, access_token = NULL, token_expiry = NULL")

    with consumer(installation, "full") as client, pytest.raises(AccountInactive, match="unreadable"):
        client.load(ANN)

    assert installation.requests == 0
    assert installation.query("SELECT status FROM mail_credentials") == [("unreadable",)]


def consumer(installation: Installation, keys: str) -> TokenClient:
    settings = installation.settings
    if keys == "full":
        return TokenClient(settings, utcnow=installation.clock)
    return TokenClient(
        ReaderSettings.model_validate(
            {
                "redis_url": settings.redis_url,
                "database_url": settings.database_url,
                "access_keys": format_access_keys(settings.keys),
            }
        ),
        utcnow=installation.clock,
    )


def test_a_change_during_a_refresh_is_found_out_afterwards(installation: Installation) -> None:
    """The new tokens are sealed for the terms that the request was sent with."""
    sign_in(installation, ANN, due=True)
    with installation.in_flight(installation.refresh_due) as refresh:
        alter(installation, "imap_host = 'smtp.example'")
    assert refresh.result() == {"leased": 1, "refreshed": 1}
    installation.services.redis.flushall()

    with consumer(installation, "access") as client, pytest.raises(AlteredAccount):
        client.load(ANN)
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 1}
    assert installation.account().status is Status.UNREADABLE


def undo(installation: Installation) -> None:
    alter(installation, "imap_host = 'imap.example'")
    installation.services.accounts.resume(ANN)


def sign_in_again(installation: Installation) -> None:
    installation.services.accounts.save([replace(installation.grant(ANN, due=True), mail=OWN)])


@pytest.mark.parametrize("mend", [undo, sign_in_again])
def test_a_changed_account_can_be_mended(installation: Installation, mend: Callable[[Installation], None]) -> None:
    sign_in(installation, ANN, due=True)
    alter(installation, "imap_host = 'smtp.example'")
    installation.refresh_due()

    mend(installation)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}
    installation.services.redis.flushall()
    assert installation.services.tokens.load(ANN).servers == OWN


@pytest.mark.parametrize("erased", ["", ", refresh_token = NULL, refresh_due_at = NULL"], ids=["kept", "erased"])
def test_a_sign_in_keeps_no_servers_that_a_writer_has_put_there(installation: Installation, erased: str) -> None:
    """The application's sign-in names no servers, so the stored ones would stay. Those are not what was saved."""
    sign_in(installation, ANN)
    alter(installation, f"imap_host = 'smtp.example'{erased}")

    installation.sign_in(ANN)

    assert installation.account().mail == MailServers()
    [line] = [entry for entry in installation.logs if entry["event"].startswith("Stored mail servers")]
    assert (line["email"], line["log_level"]) == (ANN, "warning")


def test_a_diagnosis_and_a_rotation_name_the_cause(installation: Installation) -> None:
    sign_in(installation, ANN)
    alter(installation, "imap_host = 'smtp.example'")

    with pytest.raises(ConfigurationError, match=f"{account_id(ANN)}.* changed in Postgres beside this program"):
        installation.services.key_rotation.check()
    keys = f"{generate_key('k2')},{installation.settings.encryption_keys.get_secret_value()}"
    both = installation.another_process(encryption_keys=SecretStr(keys))
    assert both.key_rotation.rotate(progress=lambda _: None) == KeyRotationReport(0, unreadable=1, remaining=1)


@pytest.mark.parametrize(
    ("servers", "refusal"),
    [
        ({"imap_host": "evil.example"}, r"'evil.example' .*WORKER_MAIL_HOSTS"),
        ({"smtp_host": "169.254.169.254"}, "WORKER_MAIL_HOSTS"),
        ({"pop_host": ""}, "WORKER_MAIL_HOSTS"),
        ({"pop_host": "localhost"}, "WORKER_MAIL_HOSTS"),
        ({"imap_host": "imap.example\nX"}, "WORKER_MAIL_HOSTS"),
        ({"imap_port": 0}, "imap_port"),
        ({"smtp_port": 65_536}, "smtp_port"),
    ],
)
def test_mail_servers_are_checked_when_they_are_saved(
    installation: Installation, servers: dict[str, object], refusal: str
) -> None:
    """The application lets its users type them."""
    with TokenClient(installation.settings, utcnow=installation.clock) as client:
        with pytest.raises(InvalidInput, match=refusal) as raised:
            client.save(ANN, refresh_token="r", mail=replace(OWN, **servers))  # type: ignore[arg-type]
        assert isinstance(raised.value, MailHostNotAllowed) == ("HOSTS" in refusal)
    assert installation.accounts() == []


def test_a_swap_of_two_tokens_in_one_row_serves_no_refresh_token(installation: Installation) -> None:
    """Both have the same binding, and each opens for its purpose only."""
    sign_in(installation, ANN)
    alter(installation, "access_token = refresh_token, refresh_token = access_token")

    with pytest.raises(UnreadableSecret):
        installation.services.tokens.get(ANN)
    installation.clock.advance(hours=2)
    assert installation.refresh_due() == {"leased": 1}
    assert installation.requests == 0


def test_a_token_of_an_earlier_release_is_bound_by_the_next_one(installation: Installation) -> None:
    sign_in(installation, ANN, due=True)
    unbind(installation)

    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}

    installation.clock.advance(hours=2)
    alter(installation, "imap_host = 'smtp.example'")
    assert installation.refresh_due() == {"leased": 1}


def test_a_rotation_binds_every_token_of_an_earlier_release(installation: Installation) -> None:
    """It needs no new key, and proves that none is left."""
    sign_in(installation, ANN, BOB)
    unbind(installation, ANN)
    unbind(installation, BOB)
    assert installation.services.tokens.get(ANN).version == 1

    rotate = installation.services.key_rotation.rotate
    assert rotate(progress=lambda _: None) == KeyRotationReport(rotated=2, unreadable=0, remaining=0)
    assert rotate(progress=lambda _: None) == KeyRotationReport(rotated=0, unreadable=0, remaining=0)

    assert installation.services.tokens.load(BOB).servers == OWN
    alter(installation, "imap_host = 'smtp.example'")
    with pytest.raises(AlteredAccount):
        installation.services.tokens.get(ANN)


def test_a_program_without_bindings_leaves_the_account_to_others(installation: Installation) -> None:
    """It takes the mark for a part of the key's id. A key that is unknown costs no account its state."""
    sign_in(installation, ANN, due=True)
    sealed = installation.account().refresh_token
    assert sealed
    length = sealed[1]
    assert sealed[0] == 1
    assert sealed[2 : 2 + length].decode("ascii").startswith("k1+")
