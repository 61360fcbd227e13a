"""An account: its state, its failures, a lease on it, and the grant that it came from."""

import enum
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NewType
from uuid import UUID, uuid5

from worker.domain.client_type import ClientType
from worker.domain.errors import InvalidInput
from worker.domain.token import LONGEST_LIFETIME, Sealed, Secret

AccountId = NewType("AccountId", UUID)
LeaseId = NewType("LeaseId", UUID)

DEFAULT_CLIENT = "default"

INACTIVITY = timedelta(days=90)  #: a refresh token not used for so long is dead; every use starts the count anew

# A fixed namespace makes the id a function of the e-mail, so a consumer finds the cache entry without asking Postgres.
_ACCOUNTS = UUID("5a1f6f0e-6a55-5c0f-9d0c-3f6f3b1d2c77")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f\ud800-\udfff]+@[^@\s\x00-\x1f\x7f\ud800-\udfff]+")
_EMAIL_LIMIT = 320  # RFC 3696 erratum 1690: 64 for the local part, @, 255 for the domain


class Status(enum.StrEnum):
    """The worker's treatment of an account."""

    ACTIVE = "active"  #: refreshed on schedule
    REAUTH_REQUIRED = "reauth_required"  #: the grant is dead; its user must sign in; looked at daily
    BLOCKED = "blocked"  #: policy, administrator or tenant refuse; looked at daily, because they change their minds
    UNREADABLE = "unreadable"  #: the stored secret opens with no key at hand; never overwritten by a refresh
    PAUSED = "paused"  #: an operator said so
    DISCONNECTED = "disconnected"  #: the tokens are gone; kept so that late writers lose


#: The states that end only by a person's help: the user's, an administrator's or an operator's.
NEEDS_ATTENTION = frozenset({Status.REAUTH_REQUIRED, Status.BLOCKED, Status.UNREADABLE})

#: The states in which a lease is possible; the others have no due time.
REFRESHABLE = frozenset({Status.ACTIVE, Status.REAUTH_REQUIRED, Status.BLOCKED})


def normalize_email(email: str) -> str:
    """The one spelling an account is stored under, which Postgres' lower() leaves as it is.

    Raises InvalidInput if it cannot be an e-mail address, or may be mistaken for another one. The error repeats the
    text only if that looks like an address, because it may be a token in the wrong place.
    """
    given = email.strip()
    normal = given.lower()
    if len(normal) > _EMAIL_LIMIT or not _EMAIL.fullmatch(normal):
        is_like_one = "@" in email and len(email) <= _EMAIL_LIMIT and _is_unambiguous(given)
        raise InvalidInput(f"not an e-mail address: {email!r}" if is_like_one else "not an e-mail address")
    if not _is_unambiguous(given):
        raise InvalidInput(
            "not an e-mail address: it has an invisible character, or a letter that stands for others;"
            " write it in Unicode's form NFKC"
        )
    return normal


def _is_unambiguous(address: str) -> bool:
    """Whether each character prints and is in form NFKC, and no foreign letter becomes an ASCII one in lower case.

    For example, the sign of the unit kelvin would become the k of another mailbox.
    """
    if not address.isprintable() or not unicodedata.is_normalized("NFKC", address):
        return False
    return not any(not letter.isascii() and letter.lower()[0].isascii() for letter in address)


def email_domain(email: str) -> str:
    """The domain of a normalized address."""
    return email.rpartition("@")[2]


@lru_cache(maxsize=4096)  # it is most of what a token from memory would cost
def account_id(email: str) -> AccountId:
    """The account's id, derived from its normalized e-mail. Raises InvalidInput."""
    return AccountId(uuid5(_ACCOUNTS, normalize_email(email)))


def check_expiry(expires_at: datetime, now: datetime) -> None:
    """Raises InvalidInput for the end of an access token that lives too long: it would never be refreshed."""
    if expires_at.utcoffset() is None:
        raise InvalidInput("expires_at has no time zone")
    if expires_at - now > LONGEST_LIFETIME:
        raise InvalidInput("expires_at is more than 48 hours away; no access token lives so long")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A streak of failures of one class; a success ends it."""

    kind: str
    code: str
    count: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServers:
    """Where the mailbox is, and the user name there. Microsoft's hosts, the same for work and personal accounts.

    ``login_name`` is the user principal name where that is not the address; None: the address.

    Source: learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection using OAuth".
    """

    imap_host: str = "outlook.office365.com"
    imap_port: int = 993  # implicit TLS
    smtp_host: str = "smtp.office365.com"
    smtp_port: int = 587  # STARTTLS
    pop_host: str = "outlook.office365.com"
    pop_port: int = 995  # implicit TLS
    login_name: str | None = None


MICROSOFT = MailServers()


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """A credential that this process, and no other, may spend until the lease ends."""

    account_id: AccountId
    email: str
    client: str
    authority: str | None  # None: the registration's own
    scopes: tuple[str, ...]  # empty: the registration's own
    refresh_token: Sealed
    version: int
    lease_id: LeaseId
    lease_until: datetime
    status: Status
    failure: Failure | None
    strikes: int = 0  # unproven signs of a dead grant since the last success
    struck_at: datetime | None = None  # the first of them
    in_backlog: bool = False  # one of many that are due together, by an import or an outage
    mail: MailServers = MICROSOFT
    client_type: ClientType = ClientType.CONFIDENTIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account to be stored. Without a refresh token it has a password and uses no OAuth."""

    email: str
    refresh_token: Secret | None = None
    client: str = DEFAULT_CLIENT
    authority: str | None = None
    scopes: tuple[str, ...] = ()
    access_token: Secret | None = None
    expires_at: datetime | None = None
    obtained_at: datetime | None = None  # of the tokens; None: now
    mail: MailServers | None = None  # None: as stored, and Microsoft's for a new account
    login_name: str | None = None  # None: that of ``mail``, else as stored
    labels: tuple[str, ...] | None = None  # of ``parse_labels``; None: as stored
    client_type: ClientType = ClientType.CONFIDENTIAL  # a first guess; the refreshes learn it


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(NewAccount):
    """The result of a sign-in or a line of an import, to be stored."""

    refresh_token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A stored account, its secrets still sealed."""

    id: AccountId
    email: str
    client: str
    authority: str | None
    scopes: tuple[str, ...]
    use_oauth: bool
    mail: MailServers
    access_token: Sealed | None
    refresh_token: Sealed | None
    obtained_at: datetime | None
    expires_at: datetime | None
    refresh_token_issued_at: datetime | None
    version: int
    status: Status
    due_at: datetime | None
    lease_until: datetime | None  # None: no process has leased it
    failure: Failure | None
    claims: str | None
    last_refreshed_at: datetime | None
    signed_in_at: datetime | None
    grant_lifetime: timedelta | None  # observed: at this age the last grant was ended by policy or platform
    labels: tuple[str, ...] = ()

    def is_leased(self, now: datetime) -> bool:
        """Whether a process is refreshing the account at this moment."""
        return self.lease_until is not None and self.lease_until > now


def grant_expires_at(account: Account) -> datetime | None:
    """The earlier of two ends: inactivity, and the fixed age at which the account's last grant was ended.

    None if there is no grant, or its age is unknown. The second is known only once it has happened: by sign-in
    frequency or as SPA.
    """
    signed_in_at, lifetime = account.signed_in_at, account.grant_lifetime
    used_at = [instant for instant in (signed_in_at, account.last_refreshed_at) if instant is not None]
    if account.refresh_token is None or not used_at:
        return None
    by_inactivity = max(used_at) + INACTIVITY
    if signed_in_at is None or lifetime is None:
        return by_inactivity
    return min(by_inactivity, signed_in_at + lifetime)
