"""A client certificate and its private key, from a PEM or PKCS#12 file."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

# ruff: noqa: PLC0415 - cryptography is imported in functions: few installations have a certificate

_PEM = b"-----BEGIN "


def read_key_and_certificate(path: Path, password: str | None) -> str:
    """The key and the certificate as PEM, unencrypted.

    Raises ValueError, which does not quote the path, because it may be the key.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    secret = password.encode() if password else None
    try:
        data = path.read_bytes()
        key, certificate = _opened(data, secret)
    except (OSError, ValueError, TypeError):  # TypeError: the key has a password, or has none
        msg = (
            "must be the path of a PEM or PKCS#12 file with a private key and its certificate; its password, if it"
            " has one, is the setting of the same name with _PASSWORD"
        )
        raise ValueError(msg) from None
    if not isinstance(key, RSAPrivateKey):
        msg = "must hold an RSA key and its certificate; Microsoft accepts no other kind"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports no TypeError
    if _PEM in data and secret is None:
        return data.decode("latin-1")  # with its chain; text around it may be in any encoding
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (plain + certificate.public_bytes(Encoding.PEM)).decode("ascii")


def _opened(data: bytes, secret: bytes | None) -> "tuple[PrivateKeyTypes, Certificate]":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
    from cryptography.x509 import load_pem_x509_certificate

    if _PEM in data:
        return load_pem_private_key(data, secret), load_pem_x509_certificate(data)
    key, certificate, _ = pkcs12.load_key_and_certificates(data, secret)
    if key is None or certificate is None:
        raise ValueError("one of them is missing")
    return key, certificate
