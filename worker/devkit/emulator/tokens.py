"""The documents of a granted token request. Their tokens have the size, shape and claims of Microsoft's."""

import base64
import hashlib
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from worker.devkit.emulator.keys import SigningKey
from worker.domain.scopes import OPENID_SCOPES

TENANT_ID = "72f1c1c4-3c57-4d0a-9d2b-6b1f0c5e8a11"
CONSUMERS_ID = "9188040d-6c67-4c5b-b112-36a304b66dad"
_GRAPH = "00000003-0000-0000-c000-000000000000"
_ACCESS_TOKEN_CLAIMS_BYTES = 1010  # they make an access token of about 1.8 KB


@dataclass(frozen=True, slots=True)
class Issue:
    """A grant before its document is written."""

    email: str
    oid: str
    client_id: str
    scope: str
    lifetime: timedelta
    refresh_token: str | None = field(repr=False)
    refresh_in: timedelta | None = None
    nonce: str | None = None

    @property
    def resource_scopes(self) -> list[str]:
        return [scope for scope in self.scope.split() if scope not in OPENID_SCOPES]

    @property
    def granted_scope(self) -> str:
        return " ".join(self.resource_scopes) or self.scope


@dataclass(frozen=True, slots=True)
class Issuer:
    """Signs and writes the documents of one tenant."""

    key: SigningKey
    base_url: str
    tenant: str

    @property
    def tenant_id(self) -> str:
        return tenant_id(self.tenant)

    @property
    def url(self) -> str:
        return f"{self.base_url}/{self.tenant_id}/v2.0"

    def document(self, issue: Issue, now: datetime, *, client_info: bool) -> dict[str, object]:
        """The body of a response with status 200, in Microsoft's order of fields."""
        seconds = int(issue.lifetime.total_seconds())
        document: dict[str, object] = {
            "token_type": "Bearer",
            "scope": issue.granted_scope,
            "expires_in": seconds,
            "ext_expires_in": seconds,
        }
        if issue.refresh_in is not None:
            document["refresh_in"] = int(issue.refresh_in.total_seconds())
        document["access_token"] = self.access_token(issue, now)
        if issue.refresh_token is not None:
            document["refresh_token"] = issue.refresh_token
        if "openid" in issue.scope.split():
            document["id_token"] = self.id_token(issue, now)
        if client_info:
            document["client_info"] = _encoded({"uid": issue.oid, "utid": self.tenant_id})
        return document

    def access_token(self, issue: Issue, now: datetime) -> str:
        claims = self._claims(issue, now) | {
            "aud": _audience(issue.resource_scopes),
            "appid": issue.client_id,
            "azp": issue.client_id,
            "idtyp": "user",
            "scp": " ".join(scope.rpartition("/")[2] for scope in issue.resource_scopes),
            "upn": issue.email,
            "unique_name": issue.email,
        }
        lacking = max(0, _ACCESS_TOKEN_CLAIMS_BYTES - len(json.dumps(claims)))
        return self.key.sign(claims | {"xms_pad": secrets.token_hex(lacking // 2)})

    def id_token(self, issue: Issue, now: datetime) -> str:
        claims = self._claims(issue, now) | {"aud": issue.client_id}
        return self.key.sign(claims | ({"nonce": issue.nonce} if issue.nonce else {}))

    def _claims(self, issue: Issue, now: datetime) -> dict[str, object]:
        instant = int(now.timestamp())
        return {
            "iss": self.url,
            "iat": instant,
            "nbf": instant,
            "exp": instant + int(issue.lifetime.total_seconds()),
            "name": issue.email.partition("@")[0],
            "oid": issue.oid,
            "preferred_username": issue.email,
            "sub": _pairwise(issue.oid, issue.client_id),
            "tid": self.tenant_id,
            "uti": secrets.token_urlsafe(16),
            "ver": "2.0",
        }


def tenant_id(tenant: str) -> str:
    """The id of a tenant that is given by alias, domain name or id."""
    if tenant == "consumers":
        return CONSUMERS_ID
    try:
        return str(uuid.UUID(tenant))
    except ValueError:
        return TENANT_ID


def _audience(resource_scopes: list[str]) -> str:
    # A token is for the resource of the first scope. A scope name without a resource means Graph.
    resource = resource_scopes[0].rpartition("/")[0] if resource_scopes else ""
    return resource or _GRAPH


def _pairwise(oid: str, client_id: str) -> str:
    digest = hashlib.sha256(f"{oid}:{client_id}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _encoded(claims: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
