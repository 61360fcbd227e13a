"""The actions of operators and the application on accounts: save, import, pause, resume, disconnect, list."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from worker.db import accounts as rows
from worker.db import grants as incoming
from worker.db.grants import SealedGrant
from worker.db.pauses import all_for_sign_ins
from worker.db.selection import Order, select
from worker.db.session import Database
from worker.domain.account import Account, AccountId, Grant, account_id, check_expiry, normalize_email
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import inactive
from worker.domain.errors import InvalidInput, UnknownAccount
from worker.domain.mail_hosts import check_servers
from worker.domain.selection import EVERYTHING, Selection
from worker.domain.token import AccessToken, as_text, is_visible
from worker.identity import Identity
from worker.service.accounts.grant_sealer import GrantSealer
from worker.service.accounts.import_format import parse_grant
from worker.service.accounts.states import AccountStates
from worker.service.tokens.cache import TokenCache

_IMPORT_GROUP = 500
_PAGE = 1000  # accounts
_OF_ALL_ROWS = timedelta(minutes=5)
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
        sealer: GrantSealer,
        identity: Identity,
        states: AccountStates,
        cache: TokenCache,
        mail_hosts: Collection[str],
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._identity = identity
        self._states = states
        self._cache = cache
        self._mail_hosts = mail_hosts
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
        self._states.pause([self.find(email).id])

    def resume(self, email: str) -> None:
        """Refresh the account again, from now on. Raises UnknownAccount, or InvalidInput if its tokens are gone."""
        account = self.find(email)
        if account.refresh_token is None:
            msg = f"{email}: its tokens are gone; connect it again"
            raise InvalidInput(msg)
        self._states.resume([account.id])

    def disconnect(self, email: str) -> None:
        """Erase an account's tokens here and in the cache.

        Raises UnknownAccount, or Unavailable if the cache could not be reached: then do it again, or the token there is
        served until it expires.
        """
        self._states.disconnect([self.find(email).id])

    def find(self, email: str) -> Account:
        """Raises UnknownAccount, or InvalidInput if this is no e-mail address."""
        with self._database.begin() as connection:
            account = rows.find(connection, account_id(email))
        if account is None:
            raise UnknownAccount(normalize_email(email))
        return account

    def select(self, selection: Selection, *, order: Order = "email", limit: int | None = None) -> list[AccountId]:
        """The selected accounts in this order, the first ``limit`` of them: a look at every row."""
        with self._database.begin_long(_OF_ALL_ROWS) as connection:
            return select(connection, selection, order=order, limit=limit)

    def list(
        self, selection: Selection = EVERYTHING, *, order: Order = "email", limit: int | None = None
    ) -> Iterator[Account]:
        """The selected accounts as they are when they are reached, read in pages."""
        selected = self.select(selection, order=order, limit=limit)
        for start in range(0, len(selected), _PAGE):
            page = selected[start : start + _PAGE]
            with self._database.begin() as connection:
                found = rows.find_many(connection, page)
            yield from (found[account] for account in page if account in found)

    def _store(self, checked: Sequence[Grant]) -> None:
        grants = {account_id(grant.email): grant for grant in checked}  # of several for one account, the last counts
        now = self._utcnow()
        with self._database.begin() as connection:
            pauses = all_for_sign_ins(connection)
            stored = rows.find_many(connection, list(grants), lock=True)
            new = [self._sealer.seal(account, grant, stored.get(account)) for account, grant in grants.items()]
            sealed = incoming.held(new, pauses) if pauses else new
            versions = incoming.save(connection, sealed, stored=stored, now=now)
        self._cache.publish([_entry(grant, versions[grant.account_id], now=now) for grant in sealed])

    def _checked(self, grant: Grant) -> Grant:
        self._identity.validate(client=grant.client, authority=grant.authority, scopes=grant.scopes)
        for name, token in (("refresh_token", grant.refresh_token), ("access_token", grant.access_token)):
            if token is not None and not (token.reveal() and is_visible(token.reveal())):
                raise InvalidInput(f"{name} is empty, or not visible ASCII characters")
        login_names = (grant.login_name, grant.mail and grant.mail.login_name)
        if any(name and not (len(name) <= _LOGIN_NAME_LIMIT and is_visible(name)) for name in login_names):
            raise InvalidInput(f"login_name is longer than {_LOGIN_NAME_LIMIT}, or not visible ASCII characters")
        if grant.mail:
            check_servers(grant.mail, self._mail_hosts)
        if grant.expires_at is not None:
            check_expiry(grant.expires_at, self._utcnow())
        email = normalize_email(grant.email)
        return grant if grant.email == email else replace(grant, email=email)


def _entry(sealed: SealedGrant, version: int, *, now: datetime) -> CacheEntry:
    grant, token = sealed.grant, None
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
        status=sealed.status,
        version=version,
        client=grant.client,
        authority=grant.authority,
        scopes=grant.scopes,
        token=token,
        refresh_token=as_text(sealed.refresh_token),
        mail=sealed.mail,
        failure=inactive(sealed.status, now=now),
    )


def _groups(numbered: Iterable[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    iterator = iter(numbered)
    while group := list(islice(iterator, size)):
        yield group
