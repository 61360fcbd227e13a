"""How a process that holds neither refresh tokens nor a client secret comes by a better token: it asks the workers."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from worker.cache import RequestDedup
from worker.domain.account import Account, AccountId
from worker.domain.cached_failure import TokenRequirement, stands
from worker.domain.errors import DatabaseUnavailable, Unavailable
from worker.domain.policy import RefreshPolicy
from worker.domain.token import CacheEntry
from worker.service.accounts.reader import AccountReader
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.on_demand import Lookup
from worker.service.tokens.polling import looks

if TYPE_CHECKING:
    from worker.broker import TaskSender  # with Celery behind it, for which only such a process should wait

# Seconds to wait for a worker's answer: with a token at hand that lives, and without any.
_BRIEFLY, _PATIENTLY = 3.0, 20.0


class DelegatedRefresh:
    """Sends an account's id to the workers' own queue for this, and watches its cache entry. Thread-safe.

    Without ``accounts`` it knows nothing but the cache; that is the smallest a consumer can be.
    """

    def __init__(
        self,
        *,
        accounts: AccountReader | None,
        entries: TokenCache,
        questions: RequestDedup,
        sender: "TaskSender",
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._entries = entries
        self._questions = questions
        self._sender = sender
        self._policy = policy
        self._utcnow = utcnow

    def obtain(self, account: AccountId, email: str, wish: TokenRequirement, *, seen: Account | None = None) -> Lookup:
        cached, stored = self._entries.read(account), self._from_database(account, email, seen)
        if stored and cached and cached.version > stored.version:
            stored = None  # what the cache has waits in the outbox: only a worker can go on from there
        if stored and self._policy.suits(stored.token, wish, now=self._utcnow()):
            self._entries.recover([stored])
            return Lookup(stored)
        if stored and stored.problem:
            self._entries.publish([stored])
            return Lookup(stored)
        if cached and self._settles(cached, wish):
            return Lookup(cached)
        known = stored or cached
        try:
            self._ask(account, wish, cached)
            return Lookup(self._awaited(account, email, wish, cached, known))
        except Unavailable as error:
            if known is None:
                raise
            return Lookup(known, error)

    def _from_database(self, account: AccountId, email: str, seen: Account | None) -> CacheEntry | None:
        if self._accounts is None:
            return None
        try:
            return self._accounts.entry(seen or self._accounts.find(account, email))
        except DatabaseUnavailable:
            return None

    def _ask(self, account: AccountId, wish: TokenRequirement, cached: CacheEntry | None) -> None:
        """Once for all who want the same and have seen the same. Raises Unavailable."""
        seen = (cached.version, cached.problem and cached.problem.noted_at) if cached else None
        question = repr((wish, seen))
        if not self._questions.is_new(account, question, timedelta(seconds=_PATIENTLY)):
            return
        min_ttl = None if wish.min_ttl is None else wish.min_ttl.total_seconds()
        try:
            self._sender.ask(account, min_ttl=min_ttl, rejected=wish.newer_than)
        except Unavailable:
            with suppress(Unavailable):  # it ends by itself
                self._questions.forget(account, question)
            raise

    def _awaited(
        self,
        account: AccountId,
        email: str,
        wish: TokenRequirement,
        cached: CacheEntry | None,
        known: CacheEntry | None,
    ) -> CacheEntry:
        """The entry once a worker has changed it. Raises Unavailable if none does."""
        has_token = known is not None and wish.allows(known.token, now=self._utcnow())
        for _look in looks(_BRIEFLY if has_token else _PATIENTLY):
            entry = self._entries.read(account)
            if entry and (self._settles(entry, wish) or self._is_news(entry, wish, cached)):
                return entry
        raise Unavailable(f"{email}: no worker has answered; is one serving the queue of on-demand refreshes?")

    def _settles(self, entry: CacheEntry, wish: TokenRequirement) -> bool:
        return self._policy.settles(entry, wish, now=self._utcnow())

    def _is_news(self, entry: CacheEntry, wish: TokenRequirement, before: CacheEntry | None) -> bool:
        """Whether it is the answer to the question, though it may not be what was wished for."""
        now = self._utcnow()
        if entry.problem != (before and before.problem) and stands(entry.problem, wish, now=now):
            return True
        return (before is None or entry.version > before.version) and wish.allows(entry.token, now=now)
