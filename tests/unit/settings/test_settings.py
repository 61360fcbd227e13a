"""The services get the settings in the form that they need."""

from pathlib import Path

import pytest

from tests.unit.settings.environment import COMPLETE, FABRIKAM, Environment, complaint, put
from worker.domain.token import Secret
from worker.settings import BrokerSettings, DatabaseSettings, Settings, load


def test_a_process_requires_only_the_settings_that_it_uses(environment: Environment) -> None:
    """Beat and Flower run without keys and database. A migration needs the database only."""
    for name in set(COMPLETE) - {"WORKER_DATABASE_URL"}:
        environment.delenv(name)
    assert load(DatabaseSettings).database_url.get_secret_value().endswith("db.example:5432/worker")

    environment.delenv("WORKER_DATABASE_URL")
    environment.setenv("WORKER_REDIS_URL", "redis://cache.example")
    assert load(BrokerSettings).broker == "redis://cache.example"
    assert "WORKER_DATABASE_URL" in complaint(DatabaseSettings)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_spelling_of_a_postgres_url_is_accepted(environment: Environment, scheme: str) -> None:
    """Hosting providers use all of them. The part behind the scheme does not change."""
    environment.setenv("WORKER_DATABASE_URL", f"{scheme}://app:p%25%40ss@db.example/worker?sslmode=require")

    url = load(Settings).database_url.get_secret_value()

    assert url == "postgresql://app:p%25%40ss@db.example/worker?sslmode=require"


def test_the_broker_may_be_another_redis(environment: Environment) -> None:
    """An empty variable means none, because containers pass unset variables as empty ones."""
    assert load(BrokerSettings).broker == COMPLETE["WORKER_REDIS_URL"]
    environment.setenv("WORKER_BROKER_URL", "")
    assert load(BrokerSettings).broker == COMPLETE["WORKER_REDIS_URL"]

    environment.setenv("WORKER_BROKER_URL", "rediss://broker.example/1")

    assert load(BrokerSettings).broker == "rediss://broker.example/1"


def test_the_default_client_comes_first_and_further_ones_by_name(
    environment: Environment, tmp_path: Path, pem: str
) -> None:
    """Each has its own authority, scopes and credential. The names are in lower case, as in accounts."""
    (tmp_path / "client.pem").write_text(pem)
    put(
        environment,
        {
            "WORKER_AUTHORITY": "https://login.example/contoso/",
            "WORKER_SCOPES": "Mail.Read,Mail.Send  User.Read",
            "WORKER_CLIENTS__FABRIKAM__CLIENT_ID": "theirs",
            "WORKER_CLIENTS__FABRIKAM__CLIENT_CERTIFICATE": str(tmp_path / "client.pem"),
            "WORKER_CLIENTS__FABRIKAM__OIDC_AUTHORITY": "https://id.example/fabrikam",
        },
    )

    default, named = load(Settings).registrations

    assert (default.name, default.client_id, default.credentials[0].secret) == ("default", "an-app", Secret("hunter2"))
    assert (default.authority, default.oidc) == ("https://login.example/contoso", False)
    assert default.scopes == ("Mail.Read", "Mail.Send", "User.Read")
    assert (named.name, named.client_id, named.credentials[0].certificate) == ("fabrikam", "theirs", Secret(pem))
    assert (named.authority, named.oidc) == ("https://id.example/fabrikam", True)


def test_the_file_of_a_certificate_may_contain_text_in_any_encoding(
    environment: Environment, tmp_path: Path, pem: str
) -> None:
    """OpenSSL writes a friendly name before it, in the encoding of the original PFX file."""
    (tmp_path / "client.pem").write_bytes("friendlyName: Müller\n".encode("latin-1") + pem.encode())
    environment.delenv("WORKER_CLIENT_SECRET")
    environment.setenv("WORKER_CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))

    [registration] = load(Settings).registrations

    certificate = registration.credentials[0].certificate
    assert certificate
    assert certificate.reveal().endswith(pem)


def test_there_may_be_named_clients_only(environment: Environment) -> None:
    """An operator with two registrations need not call one the default."""
    environment.delenv("WORKER_CLIENT_ID")
    environment.delenv("WORKER_CLIENT_SECRET")
    put(environment, FABRIKAM)

    assert [registration.name for registration in load(Settings).registrations] == ["fabrikam"]


def test_settings_do_not_show_their_secrets(environment: Environment) -> None:
    """Tracebacks and debuggers print them."""
    put(environment, FABRIKAM)
    settings = load(Settings)

    shown = f"{settings} {settings!r} {settings.registrations!r} {settings.model_dump()}"

    assert "an-app" in shown
    assert "hunter2" not in shown
    assert COMPLETE["WORKER_ENCRYPTION_KEYS"].partition(":")[2] not in shown
