"""The worker with another identity provider, set up by variables and commands as in the README."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import wait_for
from worker.devkit.emulator import DEFAULT_CLIENT_ID, EmulatorServer, Registration

SCOPES = "https://outlook.office.com/POP.AccessAsUser.All https://outlook.office.com/SMTP.Send"


@pytest.fixture(name="foreign")
def _foreign(deployment: Deployment, tmp_path: Path) -> Deployment:
    """An OpenID Connect authority with its own CA. The environment names another CA for the library requests."""
    (tmp_path / "elsewhere").mkdir()
    elsewhere = EmulatorServer(tmp_path / "elsewhere")
    deployment.environment |= {
        "WORKER_OIDC_AUTHORITY": deployment.server.oidc_authority,
        "WORKER_SCOPES": SCOPES,
        "REQUESTS_CA_BUNDLE": str(elsewhere.ca_bundle),
        "SSL_CERT_FILE": str(elsewhere.ca_bundle),
    }
    del deployment.environment["WORKER_AUTHORITY"]
    return deployment


def test_imported_accounts_of_a_foreign_authority_are_kept_fresh_and_used(foreign: Deployment) -> None:
    """The accounts come from a pipe of JSON lines. Then a consumer reads a token, and every command works."""
    first, second, third = emails(3)
    imported = foreign.cli("import", "-", stdin=_exported(foreign, first, second, third))
    assert (imported.returncode, imported.stdout) == (0, "3 imported (3 new, 0 replaced), 0 refused\n")
    worker, beat = foreign.worker(), foreign.celery("beat")
    wait_for(foreign.all_refreshed, about="the imported accounts to be refreshed", processes=[worker, beat])

    _check_token(foreign, first)
    _check_reports(foreign, [first, second, third])
    _check_refresh(foreign, first)
    _check_pause_and_resume(foreign, second)
    _check_disconnect(foreign, third)


def test_a_client_certificate_replaces_the_secret(foreign: Deployment, tmp_path: Path) -> None:
    """The registration has no secret. The worker authenticates itself by its private key."""
    key_and_certificate, certificate = _self_signed()
    registration = Registration(DEFAULT_CLIENT_ID, secrets=(), certificates=(certificate,), public=False)
    foreign.emulator.registrations.register(registration)
    pem = tmp_path / "client.pem"
    pem.write_bytes(key_and_certificate)
    foreign.environment["WORKER_CLIENT_CERTIFICATE"] = str(pem)
    del foreign.environment["WORKER_CLIENT_SECRET"]
    foreign.cli("import", "-", stdin=_exported(foreign, "ann@contoso.com"))

    worker, beat = foreign.worker(), foreign.celery("beat")
    wait_for(foreign.all_refreshed, about="a refresh by certificate", processes=[worker, beat])

    _check_token(foreign, "ann@contoso.com")
    assert foreign.emulator.statistics().failures == 0


def _exported(deployment: Deployment, *addresses: str) -> str:
    """The lines that a mail product pipes into the command after its users have signed in."""
    granted = [deployment.emulator.enrol(email, scope=f"{SCOPES} offline_access openid") for email in addresses]
    lines = [{"email": grant.email, "refresh_token": grant.refresh_token} for grant in granted]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _check_token(deployment: Deployment, email: str) -> None:
    requests = deployment.emulator.statistics().requests
    printed = deployment.cli("token", email, "--json")
    assert printed.returncode == 0, printed.stderr
    found = json.loads(printed.stdout)
    assert deployment.cli("token", email.upper()).stdout == found["access_token"] + "\n"
    claims = _claims(deployment, found["access_token"])
    assert claims["upn"] == found["email"] == email
    assert claims["scp"] == "POP.AccessAsUser.All SMTP.Send"
    assert datetime.fromisoformat(found["expires_at"]) > datetime.now(UTC) + timedelta(minutes=5)  # noqa: TID251
    assert found["version"] == 2
    assert deployment.emulator.statistics().requests == requests, "a fresh token causes no request"


def _claims(deployment: Deployment, token: str) -> dict[str, object]:
    """The claims of a token. Raises unless the authority has signed it and it lives."""
    claims: dict[str, object] = jwt.decode(
        token, deployment.emulator.key.public, algorithms=["RS256"], options={"verify_aud": False}
    )
    return claims


def _check_reports(deployment: Deployment, addresses: list[str]) -> None:
    listed = deployment.cli("list", "--json").stdout.splitlines()
    accounts = [json.loads(line) for line in listed]
    assert [account["email"] for account in accounts] == addresses
    assert {(account["status"], account["version"], account["failure"]) for account in accounts} == {
        ("active", 2, None)
    }
    plain = deployment.cli("list").stdout.splitlines()
    assert [line.split("\t")[:2] for line in plain] == [[email, "active"] for email in addresses]
    shown = json.loads(deployment.cli("show", addresses[0], "--json").stdout)
    assert [(line["trigger"], line["outcome"]) for line in shown["history"]] == [("schedule", "refreshed")]
    assert re.search(rf"^email +{addresses[0]}$", deployment.cli("show", addresses[0]).stdout, re.MULTILINE)
    status = json.loads(deployment.cli("status", "--json").stdout)
    assert (status["accounts"], status["due"], status["failing"]) == ({"active": 3}, 0, 0)
    doctor = deployment.cli("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "FAIL" not in doctor.stdout


def _check_refresh(deployment: Deployment, email: str) -> None:
    refreshed = deployment.cli("refresh", email)
    assert refreshed.returncode == 0
    assert refreshed.stdout.startswith(f"{email}: refreshed, its token lives until ")
    assert json.loads(deployment.cli("token", email, "--json").stdout)["version"] == 3


def _check_pause_and_resume(deployment: Deployment, email: str) -> None:
    assert deployment.cli("pause", email).stdout == f"{email} is paused.\n"
    refused = deployment.cli("refresh", email)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"Error: {email}: is paused, so its token is not refreshed\n"
    assert deployment.cli("token", email).returncode == 0, "the token of a paused account is served while it lives"
    requests = deployment.emulator.statistics().by_account[email].requests
    assert deployment.cli("resume", email).stdout == f"{email} is active.\n"
    wait_for(
        lambda: deployment.emulator.statistics().by_account[email].requests > requests,
        about="the resumed account to be refreshed",
    )


def _check_disconnect(deployment: Deployment, email: str) -> None:
    kept = deployment.cli("disconnect", email, stdin="n\n")
    assert kept.returncode == 2
    assert deployment.cli("disconnect", email, "--yes").stdout == f"{email} is disconnected.\n"
    refused = deployment.cli("token", email)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "disconnected" in refused.stderr
    assert deployment.sql("SELECT access_token, refresh_token FROM mail_credentials WHERE email = %s", email) == [
        (None, None)
    ]


def _self_signed() -> tuple[bytes, bytes]:
    """A private key with its certificate in one PEM, and the certificate alone."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token-worker")])
    now = datetime.now(UTC)  # noqa: TID251
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate, certificate
