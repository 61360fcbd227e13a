"""Refreshes accounts: due ones in batches, and one at a time for consumers and operators."""

import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count, islice
from typing import assert_never

import structlog

from worker.cache import RateLimiter, TenantThrottle
from worker.domain.account import DEFAULT_CLIENT, Account, AccountId, Lease
from worker.domain.breaker import Answer
from worker.domain.cache_entry import CacheEntry
from worker.domain.errors import BackingOff, ClientMisconfigured, Unavailable, UnknownKey
from worker.domain.token import Secret
from worker.identity import Identity, TokenRequest
from worker.service.refresh.breakers import Accounts, Admission, Answers, CircuitBreakers
from worker.service.refresh.leases import Batch, Leases, tenant_domain, tenant_wait
from worker.service.refresh.results import RefreshResult, ResultWriter, Trigger

log = structlog.get_logger(__name__)

_LEASING_LIMIT = timedelta(seconds=30)  # a batch ends within this, a lease and a request, at any rate
_RETRY_ELSEWHERE = timedelta(minutes=1)  # before another process may try, or this one again
_BACKLOG_MIN = 3  # due accounts; fewer are not spread over the cycle


class Refresher:
    """Thread-safe. Make it after a fork.

    Every refresh takes seven steps: deliver the outbox, ask breaker and rate, lease (transaction 1), request (no
    transaction open), decide, write (transaction 2), publish. docs/architecture.md has the map.
    """

    def __init__(
        self,
        *,
        breakers: CircuitBreakers,
        limiter: RateLimiter,
        leases: Leases,
        throttle: TenantThrottle,
        identity: Identity,
        writer: ResultWriter,
        utcnow: Callable[[], datetime],
        batch_size: int,
    ) -> None:
        self._breakers = breakers
        self._limiter = limiter
        self._leases = leases
        self._throttle = throttle
        self._identity = identity
        self._writer = writer
        self._utcnow = utcnow
        self._batch_size = batch_size
        self._stopping = threading.Event()
        self._sweeps = count()

    def batches_due(self, *, limit: int) -> list[str]:
        """The app registration of each batch to be sent, up to ``limit``, in this order. The registrations take turns,
        or one backlog would delay all others.

        Delivers the outbox first: the accounts of its results stay leased, so no batch may come to do it.
        Raises DatabaseUnavailable if Postgres is read-only, where a replica might show nothing due.
        """
        self._leases.check_writable()
        self._leases.deliver_pending()
        batches: dict[str, int] = {}
        for client in self._identity.clients:
            due = self._leases.count_due(client, limit * self._batch_size)
            batches[client] = -(-self._breakers.allowance(client, due) // self._batch_size)
        return round_robin(batches, limit, first=next(self._sweeps))

    def refresh_due(self, client: str = DEFAULT_CLIENT) -> dict[str, int]:
        """Refresh one batch of due accounts of an app registration. Returns how many leases ended how.

        If the registration comes under suspicion, a healthy account is refreshed before the others.
        """
        self._leases.deliver_pending()
        tally: Counter[str] = Counter(leased=0)
        if client not in self._identity.clients:
            log.warning("App registration is not known here; its accounts are left to other workers", client=client)
            return dict(tally)
        until = self._utcnow() + _LEASING_LIMIT
        tally.update(self._refresh_admitted(client, until))
        while self._breakers.is_suspected(client) and self._may_go_on(until):
            probed = self._refresh_admitted(client, until)
            tally.update(probed)
            if not probed["leased"] or self._breakers.is_suspected(client):
                break
            tally.update(self._refresh_admitted(client, until))
        return dict(tally)

    def _refresh_admitted(self, client: str, until: datetime) -> Counter[str]:
        """Refresh as many accounts as breaker and rate admit, up to a batch."""
        tally: Counter[str] = Counter()
        due = self._leases.count_due(client, self._batch_size + 1)
        left = min(due, self._batch_size)  # permits of the rate beyond that would be taken from other workers
        while self._may_go_on(until):
            admission = self._breakers.admit(client, left)
            if not admission.requests:
                break
            try:
                permitted = self._limiter.acquire(client, admission.requests)
                # Only accounts that do not fit into this batch make a backlog. That the rate has left room for one or
                # two is no sign of it.
                is_backlog = due > permitted >= _BACKLOG_MIN
                leased = self._lease(client, admission, permitted, is_backlog=is_backlog) if permitted else []
                tally.update(self._refresh(client, leased))
            finally:
                self._breakers.release_probe(client)
            if admission.requests < left or len(leased) < permitted or len(leased) >= left or not permitted:
                break  # the ramp's next step is for the next sweep
            due, left = due - len(leased), left - len(leased)
        return tally

    def _may_go_on(self, until: datetime) -> bool:
        return not self._stopping.is_set() and self._utcnow() < until

    def _lease(self, client: str, admission: Admission, limit: int, *, is_backlog: bool) -> list[Lease]:
        breaker = admission.breaker
        match admission.accounts:
            case Accounts.DUE:
                return self._leases.acquire_due(client, limit, in_backlog=is_backlog)
            case Accounts.PROBE:
                return self._leases.acquire_probe(client, failing=breaker.failing_accounts)
            case Accounts.SIGNED_IN:
                assert breaker.opened_at is not None
                return self._leases.acquire_sign_in(client, since=breaker.opened_at)
            case unreachable:
                assert_never(unreachable)

    def refresh_one(self, account: Account, trigger: Trigger) -> CacheEntry | None:
        """Refresh an account now, due or not. Returns its new entry, which may say why there is no token; None if
        another process is refreshing the account, or it has changed since it was read.

        Raises ClientMisconfigured or BackingOff while the app registration's breaker is open or Microsoft throttles the
        tenant, except for an operator, and UnknownKey without the key of the refresh token.
        """
        domain, is_operator = tenant_domain(account), trigger is Trigger.OPERATOR
        wait = self._throttle.waits(account.client, [domain]).get(domain)
        if wait and not is_operator:
            raise BackingOff(account.email, "tenant_throttled", wait)
        if account.client not in self._identity.clients:
            raise ClientMisconfigured(account.email, account.client, "unknown_client")  # here; others may know it
        allowed = self._breakers.admit(account.client, 1, account=account, is_operator=is_operator).requests
        if not allowed and not is_operator:
            raise self._breakers.error(account.client, account.email)
        try:
            if not self._limiter.acquire(account.client, 1):
                raise BackingOff(account.email, "rate_limited", _RETRY_ELSEWHERE)
            lease = self._leases.acquire(account)
            return self._refresh_leased(lease, trigger) if lease else None
        finally:
            if allowed:
                self._breakers.release_probe(account.client)

    def stop(self) -> None:
        """Send no more requests. Results of those under way are still written, and the other leases released."""
        self._stopping.set()

    def _refresh(self, client: str, leased: Sequence[Lease]) -> Counter[str]:
        """Refresh the leased accounts; release those that are better not requested now."""
        batch = Batch(leased, open_token=self._leases.open, is_stopped=lambda: self._is_stopped(client))
        try:
            batch.throttled = self._throttle.waits(client, batch.domains)
            for results in self._request(batch.tokens(), leased):
                batch.note(results)
                try:
                    batch.count(results, self._write(results, Trigger.SCHEDULE))
                except Exception as error:  # noqa: BLE001 - raised by finish(); responses under way are written first
                    batch.error = error
        finally:
            self._leases.release(batch.unrequested())
        return batch.finish()

    def _refresh_leased(self, lease: Lease, trigger: Trigger) -> CacheEntry | None:
        try:
            token = self._leases.open(lease)
        except UnknownKey:
            self._leases.release({lease: _RETRY_ELSEWHERE})
            raise
        if token is None:
            return None
        written: Mapping[AccountId, CacheEntry | None] = {}
        for results in self._request(iter([(lease, token)]), [lease]):
            written = self._write(results, trigger)
        return written.get(lease.account_id)

    def _request(
        self, tokens: Iterator[tuple[Lease, Secret]], expected: Sequence[Lease]
    ) -> Iterator[list[RefreshResult]]:
        """Send a request for each token, many at a time. Yields groups of results; exhaust it.

        ``expected``: all leases that may come, of one app registration.
        """
        endpoints = {(lease.client, lease.authority) for lease in expected}
        requests = ((lease, _token_request(lease, token)) for lease, token in tokens)
        for results in self._identity.refresh_all(requests, expected=endpoints, now=self._utcnow):
            for result in results:
                if result.error:
                    _log_unexpected(result.error, result.key.email)
            self._breakers.record(expected[0].client, _answers(results))
            yield results

    def _write(self, results: Sequence[RefreshResult], trigger: Trigger) -> dict[AccountId, CacheEntry | None]:
        written = self._writer.write(results, trigger)
        # The consequences for other accounts are advice: without it their requests are merely sent one by one.
        with suppress(Unavailable):
            client = results[0].key.client
            self._breakers.share(client, _answers(results))
            for result in results:
                if wait := tenant_wait(result.outcome):
                    self._throttle.throttle(client, tenant_domain(result.key), wait)
        return written

    def _is_stopped(self, client: str) -> bool:
        return self._stopping.is_set() or self._breakers.is_open(client)


def _token_request(lease: Lease, token: Secret) -> TokenRequest:
    return TokenRequest(
        refresh_token=token,
        client=lease.client,
        authority=lease.authority,
        scopes=lease.scopes,
        client_type=lease.client_type,
    )


def _log_unexpected(error: Exception, email: str) -> None:
    trace = "".join(
        traceback.format_exception(error)
    )  # as text: exc_info may be rendered with local variables, our keys
    log.error("Refresh failed unexpectedly", email=email, error=type(error).__name__, exception=trace)


def _answers(results: Sequence[RefreshResult]) -> Answers:
    return [
        Answer(
            account=result.key.account_id,
            outcome=result.outcome,
            requested_at=result.requested_at,
            was_failing=result.key.failure is not None,
        )
        for result in results
    ]


def round_robin(wanted: Mapping[str, int], places: int, *, first: int) -> list[str]:
    """Deal out up to ``places`` one by one among names that want more.

    ``first``: which name begins, counted among those that want any. If the same name always began, it would get all
    places where there is one at a time.
    """
    waiting = deque(name for name, number in wanted.items() if number > 0)
    waiting.rotate(-first)
    rounds = range(max(wanted.values(), default=0))
    dealt = (name for number in rounds for name in waiting if wanted[name] > number)
    return list(islice(dealt, places))
