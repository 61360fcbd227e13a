"""A mistake in the settings gets one sentence that says what to set, and shows no value."""

import re
from pathlib import Path

import pytest
import trustme

from tests.unit.settings.environment import COMPLETE, FABRIKAM, Environment, complaint, put
from worker.domain.errors import ConfigurationError
from worker.settings import Settings, check_names, load


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("WORKER_DATABASE_URL", "postgresql://user:password@host:5432/database"),
        ("WORKER_REDIS_URL", "redis://:password@host:6379/0"),
        ("WORKER_ENCRYPTION_KEYS", "token-worker keygen"),
        ("WORKER_CLIENT_ID", "app registration"),
        ("WORKER_CLIENT_SECRET", "CLIENT_CERTIFICATE or its CLIENT_ASSERTION_FILE must be set"),
    ],
)
def test_the_error_for_a_missing_setting_says_what_to_set(environment: Environment, name: str, advice: str) -> None:
    """The first start should not require the README."""
    environment.delenv(name)

    sentence = complaint()

    assert name in sentence
    assert advice in sentence


@pytest.mark.parametrize("name", ["WORKER_MAIL_HOSTS", "WORKER_ENDPOINT_HOSTS"])
def test_a_malformed_host_is_refused(environment: Environment, name: str) -> None:
    environment.setenv(name, "https://imap.contoso.com")
    assert complaint().startswith(f"{name} must be host names")


def test_all_missing_settings_are_named_at_once(environment: Environment) -> None:
    """An operator should not have to start once per missing setting."""
    for name in COMPLETE:
        environment.delenv(name)

    assert re.findall(r"(\w+) is not set", complaint()) == [
        "WORKER_REDIS_URL",
        "WORKER_DATABASE_URL",
        "WORKER_ENCRYPTION_KEYS",
    ]


MALFORMED = [
    ("WORKER_DATABASE_URL", ""),
    ("WORKER_DATABASE_URL", "hunter2"),
    ("WORKER_DATABASE_URL", "mysql://app:hunter2@db.example/worker"),
    ("WORKER_DATABASE_URL", "postgresql://app:hunter2"),
    ("WORKER_DATABASE_URL", "postgresql://app:hunter2@db.example:port/worker"),
    ("WORKER_REDIS_URL", "hunter2"),
    ("WORKER_REDIS_URL", "http://:hunter2@cache.example"),
    ("WORKER_REDIS_URL", "redis://:hunter2@cache.example:port/0"),
    ("WORKER_REDIS_URL", "redis://:hunter2/unescaped@cache.example:6379/0"),
    ("WORKER_BROKER_URL", "hunter2"),
    ("WORKER_ENCRYPTION_KEYS", ""),
    ("WORKER_ENCRYPTION_KEYS", "k1:hunter2"),
    ("WORKER_CLIENT_ID", ""),
    ("WORKER_CLIENT_SECRET", ""),
    ("WORKER_AUTHORITY", "hunter2"),
    ("WORKER_AUTHORITY", "http://hunter2.example/common"),
    ("WORKER_AUTHORITY", "https://hunter2.example"),
    ("WORKER_AUTHORITY", "https://[hunter2/common"),
    ("WORKER_AUTHORITY", "https://login.example/hunter2 .com"),
    ("WORKER_AUTHORITY", "https://login.example/hünter2.com"),
    ("WORKER_OIDC_AUTHORITY", "hunter2.example/issuer"),
    ("WORKER_SCOPES", ""),
    ("WORKER_SCOPES", "Mail.Read offline_access"),
    ("WORKER_CLIENTS", "hunter2"),
    ("WORKER_CLIENTS__FABRIKAM", "hunter2"),
    ("WORKER_CLIENTS__FABRIKAM__CLIENT_SECRT", "hunter2"),
    ("WORKER_CLIENTS__FABRIKAM__AUTHORITY", "hunter2"),
    ("WORKER_CA_BUNDLE", "/nowhere/ca.pem"),
    ("WORKER_CA_BUNDLE", "/"),
    ("WORKER_SECRETS_DIR", "/nowhere"),
    ("WORKER_SWEEP_INTERVAL", "often"),
    ("WORKER_SWEEP_INTERVAL", "0"),
    ("WORKER_SWEEP_INTERVAL", "inf"),
    ("WORKER_BATCH_SIZE", "0"),
    ("WORKER_BATCH_SIZE", "1001"),
    ("WORKER_CONNECTIONS", "0"),
    ("WORKER_CONNECTIONS", "257"),
    ("WORKER_LEASE", "59"),
    ("WORKER_LEASE", "inf"),
    ("WORKER_MIN_LEAD", "-1"),
    ("WORKER_MIN_LEAD", "1e15"),
    ("WORKER_CACHE_TTL", "0"),
    ("WORKER_CACHE_TTL", "inf"),
    ("WORKER_EVENTS_RETENTION_DAYS", "0"),
    ("WORKER_EVENTS_RETENTION_DAYS", "1.5"),
    ("WORKER_EVENTS_RETENTION_DAYS", "99999999999"),
    ("WORKER_LOG_LEVEL", "LOUD"),
    ("WORKER_LOG_FORMAT", "xml"),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_malformed_value_stops_the_start(environment: Environment, name: str, value: str) -> None:
    """The error names the setting. A driver's traceback would show part of a password."""
    put(environment, FABRIKAM if "FABRIKAM__" in name else {})
    environment.setenv(name, value)

    assert name in complaint()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("-----BEGIN PRIVATE KEY-----\nhunter2", id="a short PEM"),
        pytest.param("-----BEGIN PRIVATE KEY-----\n" + "hunter2\n" * 60, id="a PEM longer than any file name"),
        pytest.param("/nowhere/client.pem", id="a path to nowhere"),
        pytest.param("/", id="a directory"),
    ],
)
@pytest.mark.parametrize("client", ["", "CLIENTS__FABRIKAM__"])
def test_the_content_of_a_certificate_in_place_of_its_path_is_not_shown(
    environment: Environment, client: str, content: str
) -> None:
    """This is the most likely mistake, because Docker and Kubernetes put contents into variables."""
    put(environment, FABRIKAM if client else {})
    environment.delenv(f"WORKER_{client}CLIENT_SECRET")
    environment.setenv(f"WORKER_{client}CLIENT_CERTIFICATE", content)

    assert f"WORKER_{client}CLIENT_CERTIFICATE" in complaint()


@pytest.mark.parametrize("content", [b"\x30\x82\x05\xff binary DER, hunter2", b"no PEM at all, hunter2", b""])
def test_a_certificate_file_that_is_no_pem_stops_the_start(
    environment: Environment, tmp_path: Path, content: bytes
) -> None:
    """Otherwise the first refresh would fail. DER and PFX files look like PEM files to some operators."""
    (tmp_path / "client.pem").write_bytes(content)
    environment.delenv("WORKER_CLIENT_SECRET")
    environment.setenv("WORKER_CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))

    assert "WORKER_CLIENT_CERTIFICATE" in complaint()


@pytest.mark.parametrize("client", ["", "CLIENTS__FABRIKAM__"])
@pytest.mark.parametrize("part", ["CLIENT", "NEXT_CLIENT"])
def test_a_key_that_is_not_rsa_stops_the_start(
    environment: Environment, tmp_path: Path, client: str, part: str
) -> None:
    """Otherwise MSAL would fail at each refresh."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    (tmp_path / "client.pem").write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    put(environment, FABRIKAM if client else {})
    environment.setenv(f"WORKER_{client}CLIENT_SECRET", "hunter2" if part == "NEXT_CLIENT" else "")
    environment.setenv(f"WORKER_{client}{part}_CERTIFICATE", str(tmp_path / "client.pem"))

    sentence = complaint()

    assert f"WORKER_{client}{part}_CERTIFICATE" in sentence
    assert "RSA" in sentence


def test_a_secret_and_a_certificate_cannot_be_set_together(environment: Environment, tmp_path: Path, pem: str) -> None:
    """The worker cannot guess which one is right."""
    (tmp_path / "client.pem").write_text(pem)
    environment.setenv("WORKER_CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))

    assert "not several" in complaint()


def test_a_named_client_needs_an_id_and_a_credential(environment: Environment) -> None:
    """The sentence names the variable of that client, not of the default one."""
    environment.setenv("WORKER_CLIENTS__FABRIKAM__CLIENT_SECRET", "hunter2")
    assert "WORKER_CLIENTS__FABRIKAM__CLIENT_ID is not set" in complaint()

    environment.delenv("WORKER_CLIENTS__FABRIKAM__CLIENT_SECRET")
    environment.setenv("WORKER_CLIENTS__FABRIKAM__CLIENT_ID", "theirs")
    assert "WORKER_CLIENTS__FABRIKAM" in complaint()


def test_there_can_be_only_one_default_client(environment: Environment) -> None:
    """Accounts name their client, so the name must be unique."""
    environment.setenv("WORKER_CLIENTS__DEFAULT__CLIENT_ID", "another")
    environment.setenv("WORKER_CLIENTS__DEFAULT__CLIENT_SECRET", "hunter2")

    assert "WORKER_CLIENTS__DEFAULT__" in complaint()


def test_an_unknown_variable_is_an_error(environment: Environment) -> None:
    """Otherwise an operator may overlook it for months. The message names it and shows no value."""
    put(environment, FABRIKAM | {"WORKER_SECRETS_DIR": "/run/secrets", "WORKER_LEASE": "90"})
    check_names()
    put(environment, {"WORKER_SWEEP_INTERVALL": "hunter2", "WORKER_CLIENT_SECRT": "hunter2", "OTHER": ""})

    with pytest.raises(ConfigurationError) as refusal:
        check_names()

    assert "WORKER_CLIENT_SECRT, WORKER_SWEEP_INTERVALL;" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_variables_that_kubernetes_sets_for_a_service_are_ignored(environment: Environment) -> None:
    """A Service named `worker` or `worker-flower` puts its address into every pod of the namespace."""
    put(
        environment,
        {
            "WORKER_SERVICE_HOST": "10.0.0.1",
            "WORKER_SERVICE_PORT": "80",
            "WORKER_SERVICE_PORT_HTTP_METRICS": "80",
            "WORKER_PORT": "tcp://10.0.0.1:80",
            "WORKER_PORT_80_TCP": "tcp://10.0.0.1:80",
            "WORKER_PORT_80_TCP_PROTO": "tcp",
            "WORKER_PORT_80_TCP_PORT": "80",
            "WORKER_PORT_80_TCP_ADDR": "10.0.0.1",
            "WORKER_FLOWER_SERVICE_HOST": "10.0.0.2",
            "WORKER_FLOWER_PORT_5555_TCP": "tcp://10.0.0.2:5555",
        },
    )

    check_names()


@pytest.mark.parametrize("name", ["WORKER_SERVICE", "WORKER_PORTS", "WORKER_PORT_OF_REDIS", "WORKER_IMPORT"])
def test_other_names_with_a_port_or_a_service_are_still_mistakes(environment: Environment, name: str) -> None:
    environment.setenv(name, "1")

    with pytest.raises(ConfigurationError, match=name):
        check_names()


def test_a_certificate_that_is_replaced_after_the_check_is_a_mistake(
    environment: Environment, tmp_path: Path, pem: str
) -> None:
    """It is read again for the app registration, and its new content is not repeated."""
    (tmp_path / "client.pem").write_text(pem)
    environment.setenv("WORKER_CLIENTS__FABRIKAM__CLIENT_ID", "fabrikam")
    environment.setenv("WORKER_CLIENTS__FABRIKAM__CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))
    settings = load(Settings)
    (tmp_path / "client.pem").write_text("no certificate")

    with pytest.raises(ConfigurationError, match="the certificate of app registration 'fabrikam' must be") as refusal:
        _ = settings.registrations
    assert "no certificate" not in str(refusal.value)
