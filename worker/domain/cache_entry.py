"""An account as Redis keeps it, and its text: JSON, which a consumer in any language can read; docs/cache-entry.md."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product
from operator import itemgetter
from typing import Any

from worker.domain.account import DEFAULT_CLIENT, MICROSOFT, Account, AccountId, MailServers, Status
from worker.domain.errors import UnreadableSecret
from worker.domain.token import AccessToken, SealedText, Secret, as_text, is_visible


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFailure:
    """Why no better token can be had for an account, so that no consumer finds it out again (negative caching)."""

    kind: str  # of the last failure; or one of cached_failure.py's own
    code: str
    claims: str | None = None
    retry_at: datetime | None = None  # None if only a person can end the failure
    noted_at: datetime


@dataclass(slots=True, kw_only=True)
class CacheEntry:
    """One account as Redis keeps it; tokens are None once they are erased."""

    account_id: AccountId
    email: str
    status: Status
    version: int
    client: str = DEFAULT_CLIENT
    authority: str | None = None
    scopes: tuple[str, ...] = ()
    token: AccessToken | None = None
    refresh_token: SealedText | None = None  # sealed for its own purpose: a reader of the entry cannot spend it
    use_oauth: bool = True
    mail: MailServers = MICROSOFT
    failure: CachedFailure | None = None

    @classmethod
    def of(
        cls, account: Account, *, token: AccessToken | None = None, failure: CachedFailure | None = None
    ) -> "CacheEntry":
        """A stored account as the cache keeps it."""
        return cls(
            account_id=account.id,
            email=account.email,
            status=account.status,
            version=account.version,
            client=account.client,
            authority=account.authority,
            scopes=account.scopes,
            token=token,
            refresh_token=as_text(account.refresh_token) if account.refresh_token else None,
            use_oauth=account.use_oauth,
            mail=account.mail,
            failure=failure,
        )

    def with_failure(self, failure: CachedFailure | None) -> "CacheEntry":
        return replace(self, failure=failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailAccount:
    """Everything a mail client needs to log in; ``token`` is None for an account that does not use OAuth."""

    email: str
    servers: MailServers
    use_oauth: bool
    token: AccessToken | None

    @property
    def login_name(self) -> str:
        """The user name for the mail server: the user principal name where it is known and differs from the address."""
        return self.servers.login_name or self.email


_SERVERS = tuple(field.name for field in fields(MailServers) if field.name != "login_name")
_SERVER_VALUES = itemgetter(*_SERVERS)
_REQUIRED = {"email": str, "status": str, "version": int, "client": str, "scopes": str, "use_oauth": bool, "mail": dict}
_OPTIONAL = {"authority": str, "access_token": str, "refresh_token": str, "problem": dict}
_VALUES = itemgetter(*_REQUIRED, *_OPTIONAL)
_VALUE_TYPES = frozenset(
    (*_REQUIRED.values(), *optional) for optional in product(*((kind, type(None)) for kind in _OPTIONAL.values()))
)
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
            "problem": entry.failure and _noted(entry.failure),
        }
    )
    # The encoder would look at 3,000 characters twice, and write anew for each account what is the same for all.
    access = _quoted(token.value) if token else "null"
    sealed = f'"{refresh_token}"' if refresh_token else "null"
    common = _common(entry.client, entry.authority, entry.scopes, entry.use_oauth, entry.mail)
    return Secret(f'{own[:-1]},"access_token":{access},"refresh_token":{sealed},{common[1:]}')


def decode(text: Secret, account: AccountId) -> CacheEntry:
    """Raises UnreadableSecret for anything but an entry."""
    try:
        return _entry(json.loads(text.reveal()), account)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError):
        raise UnreadableSecret("a cache entry is malformed") from None


@lru_cache(maxsize=1024)  # a fleet has few different ones
def _common(client: str, authority: str | None, scopes: tuple[str, ...], use_oauth: bool, mail: MailServers) -> str:  # noqa: FBT001 - a field
    return _JSON.encode(
        {
            "client": client,
            "authority": authority,
            "scopes": " ".join(scopes),
            "use_oauth": use_oauth,
            "mail": {name: getattr(mail, name) for name in _SERVERS}
            | ({"login_name": mail.login_name} if mail.login_name else {}),
        }
    )


def _quoted(text: str) -> str:
    """As JSON has it; tokens need no escapes."""
    return f'"{text}"' if is_visible(text) and '"' not in text and "\\" not in text else _JSON.encode(text)


def _entry(data: Mapping[str, Any], account: AccountId) -> CacheEntry:
    values = _VALUES(data)
    if tuple(map(type, values)) not in _VALUE_TYPES:  # one look: a check of each costs more than decrypting all
        raise TypeError("a field is of another type")
    email, status, version, client, scopes, use_oauth, servers, authority, access_token, refresh_token, failure = values
    return CacheEntry(
        account_id=account,
        email=email,
        status=Status(status),
        version=version,
        client=client,
        authority=authority,
        scopes=tuple(scopes.split()),
        token=_token(data, access_token) if access_token is not None else None,
        refresh_token=refresh_token,
        use_oauth=use_oauth,
        mail=_mail(*_SERVER_VALUES(servers), servers.get("login_name")),
        failure=_failure(failure) if failure is not None else None,
    )


@lru_cache(maxsize=256, typed=True)  # a fleet has few different ones
def _mail(*values: Any) -> MailServers:
    data = dict(zip((*_SERVERS, "login_name"), values, strict=True))
    return MailServers(
        imap_host=_text(data, "imap_host"),
        imap_port=int(data["imap_port"]),
        smtp_host=_text(data, "smtp_host"),
        smtp_port=int(data["smtp_port"]),
        pop_host=_text(data, "pop_host"),
        pop_port=int(data["pop_port"]),
        login_name=_optional(data, "login_name"),
    )


def _noted(failure: CachedFailure) -> dict[str, Any]:
    return {
        **asdict(failure),
        "retry_at": failure.retry_at and failure.retry_at.timestamp(),
        "noted_at": failure.noted_at.timestamp(),
    }


def _failure(data: dict[str, Any]) -> CachedFailure:
    return CachedFailure(
        kind=_text(data, "kind"),
        code=_text(data, "code"),
        claims=_optional(data, "claims"),
        retry_at=None if data["retry_at"] is None else datetime.fromtimestamp(data["retry_at"], UTC),
        noted_at=datetime.fromtimestamp(data["noted_at"], UTC),
    )


def _token(data: Mapping[str, Any], value: str) -> AccessToken:
    return AccessToken(
        email=data["email"],
        secret=Secret(value),
        obtained_at=datetime.fromtimestamp(data["obtained_at"], UTC),
        expires_at=datetime.fromtimestamp(data["expires_at"], UTC),
        version=data["version"],
    )


def _text(data: dict[str, Any], name: str) -> str:
    value = data[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _optional(data: dict[str, Any], name: str) -> str | None:
    return None if data[name] is None else _text(data, name)
