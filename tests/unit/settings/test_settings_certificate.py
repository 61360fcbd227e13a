"""A client certificate may be in a PEM or PKCS#12 file, with or without a password."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from tests.unit.settings.environment import Environment, complaint
from worker.settings import Settings, load

_PASSWORD = "hunter2 and ü"


def _file(kind: str, pem: str, directory: Path) -> Path:
    key, certificate = load_pem_private_key(pem.encode(), None), load_pem_x509_certificate(pem.encode())
    assert isinstance(key, RSAPrivateKey)
    secret = NoEncryption() if kind.startswith("plain") else BestAvailableEncryption(_PASSWORD.encode())
    path = directory / kind.replace(" ", ".")
    if kind.endswith("pfx"):
        path.write_bytes(pkcs12.serialize_key_and_certificates(b"app", key, certificate, None, secret))
    else:
        sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
        path.write_bytes(sealed + certificate.public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize("kind", ["plain pem", "sealed pem", "plain pfx", "sealed pfx"])
@pytest.mark.parametrize("slot", ["CLIENT", "NEXT_CLIENT"])
def test_every_form_gives_the_same_credential(
    environment: Environment, pem: str, tmp_path: Path, kind: str, slot: str
) -> None:
    if slot == "CLIENT":
        environment.delenv("WORKER_CLIENT_SECRET")
    environment.setenv(f"WORKER_{slot}_CERTIFICATE", str(_file(kind, pem, tmp_path)))
    if kind.startswith("sealed"):
        environment.setenv(f"WORKER_{slot}_CERTIFICATE_PASSWORD", _PASSWORD)

    [registration] = load(Settings).registrations

    given = registration.credentials[-1].for_msal()
    assert isinstance(given, dict)
    expected = load_pem_private_key(pem.encode(), None)
    assert isinstance(expected, RSAPrivateKey)
    key = load_pem_private_key(given["private_key"].encode(), None)
    assert isinstance(key, RSAPrivateKey)
    assert key.private_numbers() == expected.private_numbers()


@pytest.mark.parametrize("kind", ["sealed pem", "sealed pfx"])
@pytest.mark.parametrize("password", [None, "hunter2"])
def test_a_password_that_is_missing_or_wrong_stops_the_start(
    environment: Environment, pem: str, tmp_path: Path, kind: str, password: str | None
) -> None:
    environment.delenv("WORKER_CLIENT_SECRET")
    environment.setenv("WORKER_CLIENT_CERTIFICATE", str(_file(kind, pem, tmp_path)))
    if password:
        environment.setenv("WORKER_CLIENT_CERTIFICATE_PASSWORD", password)

    assert "WORKER_CLIENT_CERTIFICATE must be the path of a PEM or PKCS#12 file" in complaint()
