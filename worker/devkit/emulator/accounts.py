"""Accounts, their sign-ins and their refresh tokens, under Microsoft's rules of rotation and inactivity."""

import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from worker.devkit.emulator.oauth_errors import refused
from worker.domain.advice import is_personal
from worker.domain.client_type import ClientType

Lifetime = timedelta | tuple[timedelta, timedelta]

_REFRESH_TOKEN_BYTES = 975  # before base64, which makes about the length of Microsoft's
_REFRESH_TOKEN = re.compile(rf"1\.A[\w-]{{{_REFRESH_TOKEN_BYTES * 4 // 3}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Grant:
    """The result of a sign-in. Its repr hides the tokens."""

    email: str
    expires_in: int
    scope: str
    client_id: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules of an account. `refresh_in` is sent only if it is set."""

    access_token_lifetime: Lifetime = (timedelta(minutes=60), timedelta(minutes=90))
    refresh_token_lifetime: timedelta = timedelta(days=90)
    rotate: bool = True
    strict: bool = False
    refresh_in: timedelta | None = None

    def changed(
        self,
        access_token_lifetime: Lifetime | None,
        refresh_token_lifetime: timedelta | None,
        rotate: bool | None,
        strict: bool | None,
        refresh_in: timedelta | None,
    ) -> "Terms":
        """These terms with some of them replaced; None keeps a term."""
        changes = {
            "access_token_lifetime": access_token_lifetime,
            "refresh_token_lifetime": refresh_token_lifetime,
            "rotate": rotate,
            "strict": strict,
            "refresh_in": refresh_in,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given)  # type: ignore[arg-type]


@dataclass(slots=True)
class Account:
    email: str
    terms: Terms
    oid: str
    serial: int = 0
    newest_refresh_token: str | None = field(default=None, repr=False)

    def next_lifetime(self) -> timedelta:
        """The lifetime of the next access token, spread over the range of the terms and the same in every run."""
        self.serial += 1
        lifetime = self.terms.access_token_lifetime
        if isinstance(lifetime, timedelta):
            return lifetime
        shortest, longest = lifetime
        digest = hashlib.blake2b(f"{self.email}:{self.serial}".encode(), digest_size=4).digest()
        spread = (longest - shortest) * (int.from_bytes(digest, "big") / 2**32)
        return timedelta(seconds=int((shortest + spread).total_seconds()))


@dataclass(slots=True)
class SignIn:
    """One sign-in of a user at a client. Its end is the end of all refresh tokens that descend from it."""

    account: Account
    client_id: str
    scope: str
    client_type: ClientType
    revoked: bool = False


@dataclass(slots=True)
class _RefreshToken:
    sign_in: SignIn
    last_used: datetime
    spent: bool = False

    def idle_too_long(self, now: datetime) -> bool:
        return now - self.last_used >= self.sign_in.account.terms.refresh_token_lifetime


class Accounts:
    """All accounts that have signed in. Refresh tokens are kept as digests, except the newest. Not thread-safe."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._accounts: dict[str, Account] = {}
        self._sign_ins: dict[str, list[SignIn]] = {}
        self._refresh_tokens: dict[bytes, _RefreshToken] = {}

    def find(self, email: str) -> Account:
        """The account. Raises KeyError if it never signed in."""
        return self._accounts[identity(email)]

    def open(self, email: str) -> Account:
        email = identity(email)
        if email not in self._accounts:
            oid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"mailto:{email}"))
            self._accounts[email] = Account(email, self._terms, oid)
        return self._accounts[email]

    def sign_in(self, email: str, client_id: str, scope: str, *, client_type: ClientType) -> SignIn:
        account = self.open(email)
        sign_in = SignIn(account, client_id, scope, client_type)
        self._sign_ins.setdefault(account.email, []).append(sign_in)
        return sign_in

    def revoke(self, email: str) -> None:
        """End all sign-ins of an account. Raises KeyError if it never signed in."""
        for sign_in in self._sign_ins.get(self.find(email).email, []):
            sign_in.revoked = True

    def issue(self, sign_in: SignIn, now: datetime) -> str:
        token = "1.A" + secrets.token_urlsafe(_REFRESH_TOKEN_BYTES)
        self._refresh_tokens[_digest(token)] = _RefreshToken(sign_in, now)
        sign_in.account.newest_refresh_token = token
        return token

    def redeem(self, token: str, client_id: str, now: datetime, *, proven: bool, is_cross_origin: bool) -> SignIn:
        """Use a refresh token. Raises Refused if it is unknown, ended, or issued to another client or type of one."""
        record = self._refresh_tokens.get(_digest(token))
        if record is None:
            raise refused("70000" if _REFRESH_TOKEN.fullmatch(token) else "9002313")
        sign_in = record.sign_in
        if sign_in.client_id != client_id:
            raise refused("70000", suberror="client_mismatch")
        _check_type(sign_in, proven=proven, is_cross_origin=is_cross_origin)
        self._check_alive(record, now)
        record.last_used = now
        record.spent = sign_in.account.terms.rotate
        return sign_in

    def _check_alive(self, record: _RefreshToken, now: datetime) -> None:
        if record.sign_in.revoked:
            raise refused("50173")
        if record.idle_too_long(now):
            raise refused("700082")
        if record.spent and record.sign_in.account.terms.strict:
            record.sign_in.revoked = True
            raise refused("70008")

    def accepts(self, token: str, now: datetime) -> bool:
        """Whether a refresh with this token would be granted now. The call does not count as use of the token."""
        record = self._refresh_tokens.get(_digest(token))
        if record is None or record.sign_in.revoked or record.idle_too_long(now):
            return False
        return not (record.spent and record.sign_in.account.terms.strict)

    def owner(self, token: str) -> str | None:
        record = self._refresh_tokens.get(_digest(token))
        return None if record is None else record.sign_in.account.email


def _check_type(sign_in: SignIn, *, proven: bool, is_cross_origin: bool) -> None:
    """Microsoft takes the secret with a grant of a device code, except from a personal account."""
    if (sign_in.client_type is ClientType.SPA) != is_cross_origin:
        raise refused("9002326" if is_cross_origin else "9002327")
    if sign_in.client_type is ClientType.CONFIDENTIAL and not proven:
        raise refused("7000218")
    if sign_in.client_type is ClientType.PUBLIC and proven and is_personal(sign_in.account.email):
        raise refused("90023")


def identity(email: str) -> str:
    return email.strip().lower()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
