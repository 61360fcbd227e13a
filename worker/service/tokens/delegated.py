"""Refresh on demand by a worker, for a process that holds neither refresh tokens nor a client secret."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from worker.cache import RequestDedup
from worker.domain.account import AccountId
from worker.domain.cache_entry import CacheEntry
from worker.domain.cached_failure import applies
from worker.domain.errors import Unavailable, UnreadableSecret
from worker.domain.policy import RefreshPolicy
from worker.domain.token import TokenRequirement
from worker.service.tokens.cache import TokenCache
from worker.service.tokens.on_demand import Lookup, poll

if TYPE_CHECKING:
    from worker.broker import TaskSender  # it brings Celery, which only such a process should load

# Seconds to wait for a worker: with a token at hand that lives, and without one.
_WAIT_WITH_TOKEN, _WAIT_WITHOUT = 3.0, 20.0


class DelegatedRefresh:
    """Sends an account's id to the workers through the queue ``ondemand`` and waits for its entry. Thread-safe."""

    def __init__(
        self,
        *,
        cache: TokenCache,
        requests: RequestDedup,
        sender: "TaskSender",
        policy: RefreshPolicy,
        utcnow: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._requests = requests
        self._sender = sender
        self._policy = policy
        self._utcnow = utcnow

    def refresh(self, account: AccountId, email: str, requirement: TokenRequirement, lookup: Lookup) -> Lookup:
        """Request a refresh and wait for the entry. The look-up carries Unavailable if no worker answers."""
        if isinstance(lookup.error, UnreadableSecret):
            return lookup
        cached = self._cache.read(account)
        has_token = lookup.entry is not None and requirement.accepts(lookup.entry.token, now=self._utcnow())
        try:
            self._request(account, requirement, cached)
            for _attempt in poll(_WAIT_WITH_TOKEN if has_token else _WAIT_WITHOUT):
                entry = self._cache.read(account)
                if entry and self._is_answer(entry, requirement, cached):
                    return Lookup(entry)
        except Unavailable as error:
            return replace(lookup, error=error)
        silent = Unavailable(f"{email}: no worker has answered; is one serving the queue of on-demand refreshes?")
        return replace(lookup, error=silent)

    def _request(self, account: AccountId, requirement: TokenRequirement, cached: CacheEntry | None) -> None:
        """One message for all consumers with the same requirement that have seen the same entry. Raises Unavailable."""
        seen = (cached.version, cached.failure and cached.failure.noted_at) if cached else None
        request = repr((requirement, seen))
        if not self._requests.is_new(account, request, timedelta(seconds=_WAIT_WITHOUT)):
            return
        min_ttl = None if requirement.min_ttl is None else requirement.min_ttl.total_seconds()
        try:
            self._sender.request_refresh(account, min_ttl=min_ttl, rejected=requirement.newer_than)
        except Unavailable:
            with suppress(Unavailable):  # the record ends by itself
                self._requests.release(account, request)
            raise

    def _is_answer(self, entry: CacheEntry, requirement: TokenRequirement, before: CacheEntry | None) -> bool:
        """Whether the entry ends the look-up, or is the worker's answer though it does not satisfy."""
        now = self._utcnow()
        if self._policy.is_conclusive(entry, requirement, now=now):
            return True
        if entry.failure != (before and before.failure) and applies(entry.failure, requirement, now=now):
            return True
        is_newer = before is None or entry.version > before.version
        return is_newer and requirement.accepts(entry.token, now=now)
