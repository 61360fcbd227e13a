"""Gathers what there is to know about one account, for an explanation in plain words."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from worker.cache import HeartbeatStore, OutboxStore, TenantThrottle
from worker.db import accounts, breakers, pauses
from worker.db.session import Database
from worker.domain.account import account_id, email_domain, normalize_email
from worker.domain.errors import Unavailable, UnknownAccount
from worker.domain.explanation import Circumstances, Explanation, explain_account


class AccountExplainer:
    """Thread-safe."""

    def __init__(
        self,
        *,
        database: Database,
        throttle: TenantThrottle,
        outbox: OutboxStore,
        heartbeats: HeartbeatStore,
        clients: Sequence[str],
        utcnow: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._throttle = throttle
        self._outbox = outbox
        self._heartbeats = heartbeats
        self._clients = clients
        self._utcnow = utcnow

    def explain(self, email: str) -> Explanation:
        """Raises UnknownAccount, or DatabaseUnavailable. While Redis is away, what it knows is left out."""
        with self._database.begin() as connection:
            account = accounts.find(connection, account_id(email))
            if account is None:
                raise UnknownAccount(normalize_email(email))
            breaker = breakers.find(connection, account.client)
            paused = pauses.all_pauses(connection)
        throttled = pending = processes = None
        with suppress(Unavailable):
            domain = email_domain(account.email)
            throttled = self._throttle.waits(account.client, [domain]).get(domain)
            pending = bool(self._outbox.get_many([account.id]))
            processes = self._heartbeats.live()
        return explain_account(
            Circumstances(
                account=account,
                breaker=breaker,
                pauses=[each for each in paused if each.group.covers(account.client, account.email)],
                is_configured=account.client in self._clients,
                throttled=throttled,
                is_pending=pending,
                processes=processes,
                now=self._utcnow(),
            )
        )
