"""The actions of operators and the application on accounts: save, import, pause, resume, disconnect, list."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from worker.db import accounts as rows
from worker.db import grants as incoming
from worker.db.grants import SealedGrant
from worker.db.pauses import all_for_sign_ins
from worker.db.session import Database
from worker.domain.account import Account, AccountId, Grant, NewAccount, account_id, check_expiry, normalize_email
from worker.domain.audit import Action
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import inactive
from worker.domain.errors import InvalidInput
from worker.domain.mail_hosts import check_servers
from worker.domain.token import AccessToken, as_text, is_visible
from worker.identity import Identity
from worker.service.accounts.audit import AuditLog
from worker.service.accounts.grant_sealer import GrantSealer
from worker.service.accounts.listing import AccountList
from worker.service.accounts.states import AccountStates
from worker.service.tokens.cache import TokenCache

_CLOCK_TOLERANCE = timedelta(minutes=5)
_LOGIN_NAME_LIMIT = 320  # characters, as of an address


class AccountManager(AccountList):
    """Puts grants in and takes accounts out. Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        sealer: GrantSealer,
        identity: Identity,
        states: AccountStates,
        cache: TokenCache,
        audit: AuditLog,
        mail_hosts: Collection[str],
        utcnow: Callable[[], datetime],
    ) -> None:
        super().__init__(database)
        self._sealer = sealer
        self._identity = identity
        self._states = states
        self._cache = cache
        self._audit = audit
        self._mail_hosts = mail_hosts
        self._utcnow = utcnow

    def save(self, grants: Sequence[Grant], *, action: Action = Action.SAVED) -> None:
        """Store new grants, replacing what the accounts had and forgiving earlier failures.

        Postgres is committed first, then the cache. Raises InvalidInput and then stores none of them.
        """
        self.store([self.checked(grant) for grant in grants], action=action)

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

    def store(
        self,
        checked: Sequence[NewAccount],
        *,
        action: Action,
        unless: Callable[[NewAccount, Account], bool] | None = None,
    ) -> dict[AccountId, int]:
        """Store accounts that were ``checked``. Returns the versions of those that were stored.

        Of several for one address the last counts. A stored account stays as it is if ``unless`` holds for it.
        """
        given = {account_id(each.email): each for each in checked}
        now = self._utcnow()
        with self._database.begin() as connection:
            pauses = all_for_sign_ins(connection)
            stored = rows.find_many(connection, list(given), lock=True)
            if unless:
                given = {id_: each for id_, each in given.items() if id_ not in stored or not unless(each, stored[id_])}
            new = [self._sealer.seal(account, each, stored.get(account)) for account, each in given.items()]
            sealed = incoming.held(new, pauses) if pauses else new
            versions = incoming.save(connection, sealed, stored=stored, now=now) if sealed else {}
            self._audit.record(connection, action, list(versions))
        self._cache.publish([_entry(each, versions[each.account_id], now=now) for each in sealed])
        return versions

    def stored(self, accounts: Sequence[NewAccount]) -> dict[AccountId, Account]:
        """Those of the accounts that are stored, as they are."""
        with self._database.begin() as connection:
            return rows.find_many(connection, [account_id(each.email) for each in accounts])

    def checked(self, grant: NewAccount) -> NewAccount:
        """The account with its address normalized. Raises InvalidInput if it cannot be stored."""
        self._identity.validate(client=grant.client, authority=grant.authority, scopes=grant.scopes)
        for name, token in (("refresh_token", grant.refresh_token), ("access_token", grant.access_token)):
            if token is not None and not (token.reveal() and is_visible(token.reveal())):
                raise InvalidInput(f"{name} is empty, or not visible ASCII characters")
        login_names = (grant.login_name, grant.mail and grant.mail.login_name)
        if any(name and not (len(name) <= _LOGIN_NAME_LIMIT and is_visible(name)) for name in login_names):
            raise InvalidInput(f"login_name is longer than {_LOGIN_NAME_LIMIT}, or not visible ASCII characters")
        if grant.mail and grant.refresh_token:  # a password account gets no token, so its servers may be any
            check_servers(grant.mail, self._mail_hosts)
        if grant.expires_at is not None:
            check_expiry(grant.expires_at, self._utcnow())
        if grant.obtained_at is not None and grant.obtained_at > self._utcnow() + _CLOCK_TOLERANCE:
            raise InvalidInput("obtained_at is in the future")
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
        use_oauth=grant.refresh_token is not None,
        token=token,
        refresh_token=as_text(sealed.refresh_token) if sealed.refresh_token else None,
        mail=sealed.mail,
        failure=inactive(sealed.status, now=now),
    )
