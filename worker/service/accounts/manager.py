"""The actions of operators and the application on accounts: save, import, pause, resume, disconnect, list."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from worker.db import accounts as rows
from worker.db import grants as incoming
from worker.db.grants import Saved, SealedGrant
from worker.db.session import Database
from worker.domain.account import Account, AccountId, Grant, Status, account_id, check_expiry, normalize_email
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import failure_of
from worker.domain.errors import InvalidInput, Unavailable, UnknownAccount
from worker.domain.outcome import Refreshed
from worker.domain.policy import RefreshPolicy
from worker.domain.token import AccessToken, as_text, is_visible
from worker.identity import Identity
from worker.service.accounts.import_format import parse_grant
from worker.service.accounts.reader import AccountReader
from worker.service.tokens.cache import TokenCache
from worker.vault import Purpose, Vault

_IMPORT_GROUP = 500
_LOGIN_NAME_LIMIT = 320  # characters, as of an address


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of an import that cannot be used, and why. Never quotes the line: it may hold a token."""

    number: int
    reason: str


class AccountManager:
    """Puts grants in and takes accounts out. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        identity: Identity,
        accounts: AccountReader,
        cache: TokenCache,
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._identity = identity
        self._accounts = accounts
        self._cache = cache
        self._policy = policy
        self._utcnow = utcnow

    def save(self, grants: Sequence[Grant]) -> None:
        """Store new grants, replacing what the accounts had and forgiving earlier failures.

        Postgres is committed first, then the cache. Raises InvalidInput and then stores none of them.
        """
        self._store([self._checked(grant) for grant in grants])

    def import_lines(self, lines: Iterable[str], *, progress: Callable[[int], None]) -> tuple[int, list[BadLine]]:
        """Store one grant per JSON line; a bad line is reported and the others are stored. Calls ``progress`` with the
        number of lines done."""
        stored, bad = 0, list[BadLine]()
        for group in _groups(enumerate(lines, start=1), _IMPORT_GROUP):
            grants: list[Grant] = []
            for number, line in group:
                try:
                    grants += [self._checked(parse_grant(line))] if line.strip() else []
                except InvalidInput as error:
                    bad.append(BadLine(number, str(error)))
            if grants:
                self._store(grants)
            stored += len(grants)
            progress(group[-1][0])
        return stored, bad

    def pause(self, email: str) -> None:
        """Stop refreshing an account until it is resumed; its token is served while it lives. Raises UnknownAccount."""
        self._set(email, Status.PAUSED, due_at=None)

    def resume(self, email: str) -> None:
        """Refresh the account again, from now on. Raises UnknownAccount, or InvalidInput if its tokens are gone."""
        if self.find(email).refresh_token is None:
            msg = f"{email}: its tokens are gone; connect it again"
            raise InvalidInput(msg)
        self._set(email, Status.ACTIVE, due_at=self._utcnow())

    def disconnect(self, email: str) -> None:
        """Erase an account's tokens here and in the cache.

        Raises UnknownAccount, or Unavailable if the cache could not be reached: then do it again, or the token there is
        served until it expires.
        """
        account = self.find(email)
        with self._database.begin() as connection:
            version = rows.set_status(connection, account.id, Status.DISCONNECTED, due_at=None, now=self._utcnow())
            rows.erase_tokens(connection, account.id)
        assert version is not None
        # An entry without tokens, not a missing one: it outranks a late writer's copy.
        gone = replace(
            account, status=Status.DISCONNECTED, version=version, due_at=None, refresh_token=None, failure=None
        )
        if not self._cache.publish([CacheEntry.of(gone, failure=failure_of(gone, now=self._utcnow()))]):
            msg = f"{account.email}: erased from the database, but Redis could not be reached; run this again"
            raise Unavailable(msg)

    def find(self, email: str) -> Account:
        """Raises UnknownAccount, or InvalidInput if this is no e-mail address."""
        with self._database.begin() as connection:
            account = rows.find(connection, account_id(email))
        if account is None:
            raise UnknownAccount(normalize_email(email))
        return account

    def list(self, *, status: Status | None = None, expiring_within: timedelta | None = None) -> Iterator[Account]:
        """All accounts in order of e-mail, read in pages; or those in a state, or whose grant will soon be dead."""
        expiring_before = None if expiring_within is None else self._utcnow() + expiring_within
        after, page = "", 1000
        while True:
            with self._database.begin() as connection:
                accounts = rows.list_accounts(
                    connection, status=status, expiring_before=expiring_before, after=after, limit=page
                )
            yield from accounts
            if len(accounts) < page:
                return
            after = accounts[-1].email

    def _set(self, email: str, status: Status, *, due_at: datetime | None) -> None:
        account = self.find(email)
        with self._database.begin() as connection:
            rows.set_status(connection, account.id, status, due_at=due_at, now=self._utcnow())
        self._cache.publish(self._accounts.entries([account.id]))  # a cached failure has lost its cause

    def _store(self, checked: Sequence[Grant]) -> None:
        unique = {grant.email: grant for grant in checked}
        sealed = [self._seal(grant) for grant in unique.values()]
        with self._database.begin() as connection:
            saved = incoming.save(connection, sealed, now=self._utcnow())
        self._cache.publish([_entry(grant, saved[grant.account_id]) for grant in sealed])

    def _checked(self, grant: Grant) -> Grant:
        self._identity.validate(client=grant.client, authority=grant.authority, scopes=grant.scopes)
        for name, token in (("refresh_token", grant.refresh_token), ("access_token", grant.access_token)):
            if token is not None and not (token.reveal() and is_visible(token.reveal())):
                raise InvalidInput(f"{name} is empty, or not visible ASCII characters")
        login_names = (grant.login_name, grant.mail and grant.mail.login_name)
        if any(name and not (len(name) <= _LOGIN_NAME_LIMIT and is_visible(name)) for name in login_names):
            raise InvalidInput(f"login_name is longer than {_LOGIN_NAME_LIMIT}, or not visible ASCII characters")
        if grant.expires_at is not None:
            check_expiry(grant.expires_at, self._utcnow())
        email = normalize_email(grant.email)
        return grant if grant.email == email else replace(grant, email=email)

    def _seal(self, grant: Grant) -> SealedGrant:
        account, now = account_id(grant.email), self._utcnow()
        # A token without a known expiry cannot be served; a refresh gets a new one at once.
        known = grant.access_token is not None and grant.expires_at is not None and grant.expires_at > now
        access_token = grant.access_token if known else None
        return SealedGrant(
            account_id=account,
            grant=grant,
            refresh_token=self._vault.seal(grant.refresh_token, account, Purpose.REFRESH_TOKEN),
            access_token=self._vault.seal(access_token, account, Purpose.ACCESS_TOKEN) if access_token else None,
            obtained_at=now if known else None,
            due_at=self._due_at(account, grant, now) if known else now,
        )

    def _due_at(self, account: AccountId, grant: Grant, now: datetime) -> datetime:
        if grant.access_token is None or grant.expires_at is None:
            return now
        token = Refreshed(
            access_token=grant.access_token, refresh_token=None, obtained_at=now, expires_at=grant.expires_at
        )
        return self._policy.due_at(account, 1, token)


def _entry(sealed: SealedGrant, saved: Saved) -> CacheEntry:
    grant, token, version = sealed.grant, None, saved.version
    if sealed.access_token and grant.access_token and grant.expires_at and sealed.obtained_at:
        token = AccessToken(
            email=grant.email,
            secret=grant.access_token,
            obtained_at=sealed.obtained_at,
            expires_at=grant.expires_at,
            version=version,
        )
    return CacheEntry(
        account_id=sealed.account_id,
        email=grant.email,
        status=Status.ACTIVE,
        version=version,
        client=grant.client,
        authority=grant.authority,
        scopes=grant.scopes,
        token=token,
        refresh_token=as_text(sealed.refresh_token),
        mail=saved.mail,
    )


def _groups(numbered: Iterable[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    iterator = iter(numbered)
    while group := list(islice(iterator, size)):
        yield group
