"""One app registration: the client id, its credentials, and the authorities to which these may be sent."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from worker.domain.account import MICROSOFT, MailServers
from worker.domain.errors import ConfigurationError, InvalidInput
from worker.domain.scopes import OPENID_SCOPES, resources, shown
from worker.domain.token import Secret
from worker.identity.authority import AUTHORITY_FORM, split_authority

_RESERVED_SCOPES = OPENID_SCOPES - {"email"}  # MSAL adds them and refuses them as input


_MAX_ASSERTION = 65_536  # bytes; a longer one is no JSON Web Token


class AssertionUnreadable(Exception):
    """The file with the client assertion cannot be read now, or holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """How an app authenticates: by a secret, by a certificate (PEM: the private key and its certificate), or by an
    assertion that another issuer signs and renews in a file (RFC 7523; workload identity federation at Microsoft)."""

    secret: Secret | None = None
    certificate: Secret | None = None
    assertion_file: Path | None = None

    def for_msal(self) -> str | dict[str, Any]:
        """MSAL's ``client_credential``, which reads an assertion anew for each request that MSAL writes.

        Raises ConfigurationError if there is none of the three.
        """
        if self.assertion_file is not None:
            return {"client_assertion": partial(_read_assertion, self.assertion_file)}
        if self.certificate is not None:
            pem = self.certificate.reveal()
            return {"private_key": pem, "public_certificate": pem}
        if self.secret is None:
            raise ConfigurationError("an app registration has no client secret, certificate or assertion file")
        return self.secret.reveal()

    def expires_at(self) -> datetime | None:
        """The end of the certificate; None for a secret, whose end Microsoft alone knows."""
        if self.certificate is None:
            return None
        from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - few processes need it

        return load_pem_x509_certificate(self.certificate.reveal().encode()).not_valid_after_utc


def _read_assertion(path: Path) -> str:
    """Raises AssertionUnreadable."""
    try:
        with path.open("rb") as file:
            assertion = file.read(_MAX_ASSERTION).decode("ascii").strip()
    except (OSError, ValueError):
        raise AssertionUnreadable from None
    if assertion.count(".") != 2:  # noqa: PLR2004 - header, claims and signature
        raise AssertionUnreadable
    return assertion


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One app registration at the Microsoft identity platform.

    ``credentials``: the current one and, while it is being rotated, the next one.
    """

    name: str
    client_id: str
    authority: str
    scopes: tuple[str, ...]
    credentials: tuple[ClientCredential, ...]
    mail: MailServers = MICROSOFT  # of accounts that name none
    oidc: bool = False  # the authority is a plain OpenID Connect issuer: no /v2.0 is added to find its metadata

    def authority_arguments(self, authority: str) -> dict[str, Any]:
        """MSAL's arguments for this authority."""
        if self.oidc:
            return {"oidc_authority": authority}
        return {"authority": authority, "instance_discovery": False}

    def check_authority(self, authority: str) -> None:
        """Raises InvalidInput for an authority on another host, without a tenant, or with anything else.

        A client secret is sent to the authority's host, so an account may choose the tenant but never the host.
        """
        ours, theirs = split_authority(self.authority), split_authority(authority)
        assert ours, "the settings have checked it"
        server, _ = ours
        if theirs is None:
            msg = f"the authority is not of the form {server}/contoso.com: {AUTHORITY_FORM}"
            raise InvalidInput(msg)
        if theirs[0] != server:
            msg = (
                f"the authority is not on the host of app registration {self.name!r} ({server});"
                " add a registration for it"
            )
            raise InvalidInput(msg)
        if not theirs[1]:
            msg = f"the authority names no tenant; it looks like {server}/contoso.com"
            raise InvalidInput(msg)


def check_scopes(scopes: tuple[str, ...], *, oidc: bool) -> None:
    """Raises InvalidInput for a scope that MSAL adds, and for scopes of two resources.

    Microsoft refuses the latter, or issues a token for the first resource alone. ``oidc``: the authority is another
    issuer's, to which a scope is only a word.
    """
    for scope in scopes:
        if scope in _RESERVED_SCOPES:
            msg = f"scope {scope!r} is added by itself; leave it out"
            raise InvalidInput(msg)
    named = resources(scopes)
    if len(named) > 1 and not oidc:
        both = " and ".join(map(shown, named[:2]))
        msg = f"scopes must be of one resource, not of {both}; Microsoft issues a token for one resource only"
        raise InvalidInput(msg)
