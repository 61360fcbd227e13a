"""Makes the row of a grant: tokens that are sealed for its terms, the mail servers, and the due time."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from worker.db.grants import SealedGrant
from worker.domain.account import MICROSOFT, Account, AccountId, MailServers, NewAccount
from worker.domain.binding import binding, binding_of
from worker.domain.errors import UnreadableSecret
from worker.domain.outcome import Refreshed
from worker.domain.policy import RefreshPolicy
from worker.vault import Purpose, Vault

log = structlog.get_logger(__name__)


class GrantSealer:
    """Thread-safe."""

    def __init__(
        self,
        *,
        vault: Vault,
        policy: RefreshPolicy,
        servers: Mapping[str, MailServers],
        utcnow: Callable[[], datetime],
    ) -> None:
        """``servers`` are the mail servers of accounts that name none, by app registration."""
        self._vault = vault
        self._policy = policy
        self._servers = servers
        self._utcnow = utcnow

    def seal(self, account: AccountId, grant: NewAccount, stored: Account | None) -> SealedGrant:
        """The row that replaces ``stored``, the account as it is."""
        now, mail = self._utcnow(), self._mail(grant, stored)
        bound_to = binding(grant.email, grant.client, grant.authority, grant.scopes, mail)
        # A token without a known expiry cannot be served; a refresh gets a new one at once.
        known = grant.access_token is not None and grant.expires_at is not None and grant.expires_at > now
        access_token, refresh_token = grant.access_token if known else None, grant.refresh_token
        obtained_at = min(grant.obtained_at or now, now)
        seal = self._vault.seal
        return SealedGrant(
            account_id=account,
            grant=grant,
            mail=mail,
            refresh_token=seal(refresh_token, account, Purpose.REFRESH_TOKEN, bound_to) if refresh_token else None,
            access_token=seal(access_token, account, Purpose.ACCESS_TOKEN, bound_to) if access_token else None,
            obtained_at=obtained_at if known else None,
            issued_at=obtained_at if refresh_token else None,
            due_at=self._due_at(account, grant, obtained_at, now) if refresh_token else None,
        )

    def _mail(self, grant: NewAccount, stored: Account | None) -> MailServers:
        """The servers of the grant, or those that the account has, with the login name."""
        kept = self._vouched_for(stored) if stored else MICROSOFT
        if kept == MICROSOFT:
            kept = self._servers.get(grant.client, MICROSOFT)
        login_name = grant.login_name or (grant.mail and grant.mail.login_name) or kept.login_name
        return replace(grant.mail or kept, login_name=login_name)

    def _vouched_for(self, stored: Account) -> MailServers:
        """The stored servers if the refresh token is bound to them. Otherwise another program may have put them there,
        to be sent the token of the next sign-in."""
        try:
            if stored.refresh_token:
                self._vault.open(stored.refresh_token, stored.id, Purpose.REFRESH_TOKEN, binding_of(stored))
                return stored.mail
        except UnreadableSecret:
            pass
        if stored.mail != MICROSOFT:
            log.warning("Stored mail servers are not kept: no refresh token is bound to them", email=stored.email)
        return MICROSOFT

    def _due_at(self, account: AccountId, grant: NewAccount, obtained_at: datetime, now: datetime) -> datetime:
        if grant.access_token is None or grant.expires_at is None or grant.expires_at <= now:
            return now
        token = Refreshed(
            access_token=grant.access_token, refresh_token=None, obtained_at=obtained_at, expires_at=grant.expires_at
        )
        return self._policy.due_at(account, 1, token)
