"""The text inside a sealed cache entry: JSON, so that a consumer in any language can read it; docs/cache-entry.md."""

import base64
import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from worker.domain.account import AccountId, MailServers, Status
from worker.domain.errors import UnreadableSecret
from worker.domain.secret import Sealed, Secret, is_visible
from worker.domain.token import AccessToken, CachedFailure, CacheEntry

_SERVERS = tuple(field.name for field in fields(MailServers))
_JSON = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for every entry


def encode(entry: CacheEntry) -> Secret:
    """Times are seconds since the epoch; the refresh token stays sealed and is base64."""
    token, refresh_token = entry.token, entry.refresh_token
    own = _JSON.encode(
        {
            "email": entry.email,
            "status": entry.status.value,
            "version": entry.version,
            "obtained_at": token and token.obtained_at.timestamp(),
            "expires_at": token and token.expires_at.timestamp(),
            "problem": entry.problem and _noted(entry.problem),
        }
    )
    # The encoder would look at 3,000 characters twice, and write anew for each account what is the same for all.
    access = _quoted(token.value) if token else "null"
    sealed = f'"{base64.b64encode(refresh_token).decode()}"' if refresh_token else "null"
    common = _common(entry.client, entry.authority, entry.scopes, entry.use_oauth, entry.mail)
    return Secret(f'{own[:-1]},"access_token":{access},"refresh_token":{sealed},{common[1:]}')


def decode(text: Secret, account: AccountId) -> CacheEntry:
    """Raises UnreadableSecret for anything but an entry."""
    try:
        return _entry(json.loads(text.reveal()), account)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise UnreadableSecret("a cache entry is malformed") from None


@lru_cache(maxsize=1024)  # a fleet has few
def _common(client: str, authority: str | None, scopes: tuple[str, ...], use_oauth: bool, mail: MailServers) -> str:  # noqa: FBT001 - a field
    return _JSON.encode(
        {
            "client": client,
            "authority": authority,
            "scopes": " ".join(scopes),
            "use_oauth": use_oauth,
            "mail": {name: getattr(mail, name) for name in _SERVERS},
        }
    )


def _quoted(text: str) -> str:
    """As JSON has it; tokens need no escapes."""
    return f'"{text}"' if is_visible(text) and '"' not in text and "\\" not in text else _JSON.encode(text)


def _entry(data: dict[str, Any], account: AccountId) -> CacheEntry:
    refresh_token, servers = _optional(data, "refresh_token"), data["mail"]
    return CacheEntry(
        account_id=account,
        email=_text(data, "email"),
        status=Status(data["status"]),
        version=int(data["version"]),
        client=_text(data, "client"),
        authority=_optional(data, "authority"),
        scopes=tuple(_text(data, "scopes").split()),
        token=_token(data),
        refresh_token=Sealed(base64.b64decode(refresh_token, validate=True)) if refresh_token else None,
        use_oauth=_flag(data, "use_oauth"),
        mail=_mail(*(servers[name] for name in _SERVERS)),
        problem=None if data["problem"] is None else _problem(data["problem"]),
    )


@lru_cache(maxsize=256, typed=True)  # a fleet has few
def _mail(*values: Any) -> MailServers:
    data = dict(zip(_SERVERS, values, strict=True))
    return MailServers(
        imap_host=_text(data, "imap_host"),
        imap_port=int(data["imap_port"]),
        smtp_host=_text(data, "smtp_host"),
        smtp_port=int(data["smtp_port"]),
        pop_host=_text(data, "pop_host"),
        pop_port=int(data["pop_port"]),
    )


def _noted(problem: CachedFailure) -> dict[str, Any]:
    return {
        **asdict(problem),
        "retry_at": problem.retry_at and problem.retry_at.timestamp(),
        "noted_at": problem.noted_at.timestamp(),
    }


def _problem(data: dict[str, Any]) -> CachedFailure:
    return CachedFailure(
        kind=_text(data, "kind"),
        code=_text(data, "code"),
        claims=_optional(data, "claims"),
        retry_at=None if data["retry_at"] is None else datetime.fromtimestamp(data["retry_at"], UTC),
        noted_at=datetime.fromtimestamp(data["noted_at"], UTC),
    )


def _token(data: dict[str, Any]) -> AccessToken | None:
    value = _optional(data, "access_token")
    if value is None:
        return None
    return AccessToken(
        email=_text(data, "email"),
        secret=Secret(value),
        obtained_at=datetime.fromtimestamp(data["obtained_at"], UTC),
        expires_at=datetime.fromtimestamp(data["expires_at"], UTC),
        version=int(data["version"]),
    )


def _flag(data: dict[str, Any], name: str) -> bool:
    value = data[name]
    if not isinstance(value, bool):
        raise TypeError(name)
    return value


def _text(data: dict[str, Any], name: str) -> str:
    value = data[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _optional(data: dict[str, Any], name: str) -> str | None:
    return None if data[name] is None else _text(data, name)
