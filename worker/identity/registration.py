"""One app registration: the client id, its credentials, and the authorities to which these may be sent."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from worker.domain.errors import ConfigurationError, InvalidInput
from worker.domain.scopes import OPENID_SCOPES, resources, shown
from worker.domain.token import Secret

_AUTHORITY = re.compile(r"[A-Za-z0-9._~:/-]+")
_RESERVED_SCOPES = OPENID_SCOPES - {"email"}  # MSAL adds them and refuses them as input


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """How an app authenticates: by a secret, or by a certificate (PEM: the private key and its certificate)."""

    secret: Secret | None = None
    certificate: Secret | None = None

    def for_msal(self) -> str | dict[str, str]:
        """MSAL's ``client_credential``. Raises ConfigurationError if there is neither secret nor certificate."""
        if self.certificate is not None:
            pem = self.certificate.reveal()
            return {"private_key": pem, "public_certificate": pem}
        if self.secret is None:
            raise ConfigurationError("an app registration has neither a client secret nor a certificate")
        return self.secret.reveal()


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
    oidc: bool = False  # the authority is a plain OpenID Connect issuer: no /v2.0 is added to find its metadata

    def authority_arguments(self, authority: str) -> dict[str, Any]:
        """MSAL's arguments for this authority."""
        if self.oidc:
            return {"oidc_authority": authority}
        return {"authority": authority, "instance_discovery": False}

    def check_authority(self, authority: str) -> None:
        """Raises InvalidInput for an authority on another host, or without a tenant.

        A client secret is sent to the authority's host, so an account may choose the tenant but never the host.
        """
        ours = urlsplit(self.authority)
        try:
            theirs = urlsplit(authority)
        except ValueError:
            raise InvalidInput("the authority is no URL") from None
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            msg = (
                f"the authority is not on the host of app registration {self.name!r} ({ours.scheme}://{ours.netloc});"
                " add a registration for it"
            )
            raise InvalidInput(msg)
        if authority != self.authority and not _AUTHORITY.fullmatch(authority):
            raise InvalidInput("the authority has a blank or another character that no tenant's address has")
        if not theirs.path.strip("/"):
            msg = f"the authority names no tenant; it looks like {ours.scheme}://{ours.netloc}/contoso.com"
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
