"""Refreshes tokens: TokenRequests in, ended RefreshAttempts out, many at once."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from worker.domain.codes import hint
from worker.domain.errors import ConfigurationError, InvalidInput
from worker.domain.http import HttpResponse
from worker.domain.outcome import Outcome, Scope, Transient
from worker.domain.proxy import DIRECT, ProxyRules
from worker.identity.curl import CurlPool, CurlSession, HttpRequest, TransferError, monotonic
from worker.identity.device_flow import DeviceFlow
from worker.identity.msal_apps import PUBLIC_CLIENT, DiscoveryFailed, MsalApps
from worker.identity.registration import Registration, check_scopes
from worker.identity.requests import CredentialOrder, RequestBuilder
from worker.identity.token_request import RefreshAttempt, TokenRequest

Key = TypeVar("Key")

# Responses are yielded in groups, because each group costs a commit: up to this many, or those that have come within
# this time. Microsoft takes about as long for one response. A worker that is killed loses the requests under way and
# the responses gathered, which at most doubles the loss.
_GROUP_SIZE = 250
_GATHER_SECONDS = 0.15
_REFILL = 0.75  # of the window: starting a few requests together costs less than starting each when there is room
_INITIAL_SIZE = 16  # requests at once
_LONGEST_WAIT = 60.0  # seconds; longer than any request takes


class ConcurrencyWindow:
    """How many requests may be under way at once: few, until their responses show that all is well.

    The first responses show that an app secret is wrong or that the platform is in trouble. The requests under way by
    then are sent in vain.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = min(_INITIAL_SIZE, most)
        self.allows_refill = False  #: whether further requests may start before the caller has seen the last responses

    def adjust(self, outcomes: Iterable[Outcome]) -> None:
        """Double the size, or reset it if an outcome is about the whole app registration."""
        scopes = _scopes_about_others(outcomes)
        is_bad = any(scope.is_about_registration for scope in scopes)
        self.size = min(self._most, _INITIAL_SIZE if is_bad else 2 * self.size)
        self.allows_refill = self.size == self._most and not scopes


class RequestPipeline(Generic[Key]):
    """The token requests of one thread."""

    def __init__(
        self,
        requests: Iterator[tuple[Key, TokenRequest]],
        *,
        builder: RequestBuilder,
        pool: CurlPool,
        window: ConcurrencyWindow,
    ) -> None:
        self._requests = requests
        self._builder = builder
        self._window = window
        self._session = CurlSession[RefreshAttempt[Key]](pool)
        self._ended: list[RefreshAttempt[Key]] = []

    def run(self) -> Iterator[list[RefreshAttempt[Key]]]:
        """Start a request whenever the window has room for it; yields ended attempts in groups."""
        with self._session:
            while True:
                self._fill()
                if not (self._session or self._ended):
                    return
                self._gather()
                group, self._ended = self._ended, []
                self._window.adjust(attempt.outcome for attempt in group)
                yield group

    def _fill(self) -> None:
        room = max(0, self._window.size - len(self._session))
        for key, request in islice(self._requests, room):
            self._advance(self._builder.attempt(key, request))

    def _gather(self) -> None:
        """Wait for a group of responses. While all is well, further requests start in the meantime."""
        deadline: float | None = None
        may_refill = self._window.allows_refill
        while self._session and len(self._ended) < _GROUP_SIZE:
            if deadline is None and self._ended:
                deadline = monotonic() + _GATHER_SECONDS
            seconds = _LONGEST_WAIT if deadline is None else deadline - monotonic()
            if seconds <= 0:
                return
            received = self._receive(seconds)
            may_refill = may_refill and not _scopes_about_others(attempt.outcome for attempt in received)
            if may_refill and len(self._session) <= self._window.size * _REFILL:
                self._fill()

    def _receive(self, seconds: float) -> list[RefreshAttempt[Key]]:
        """The attempts that have ended within this time."""
        known = len(self._ended)
        for transfer in self._session.wait(seconds):
            transfer.key.latency += timedelta(seconds=transfer.seconds)
            self._advance(transfer.key, transfer.result)
        return self._ended[known:]

    def _advance(self, attempt: RefreshAttempt[Key], result: HttpResponse | TransferError | None = None) -> None:
        """Send the attempt's first request or, after a result, its next; if there is none, the attempt has ended."""
        try:
            step = self._builder.build(attempt) if result is None else self._builder.proceed(attempt, result)
            if isinstance(step, HttpRequest):
                self._session.start(attempt, step)
                return
        except Exception as error:  # noqa: BLE001 - concerns one account, and the caller; the other requests go on
            attempt.error = error
            step = Transient(code="internal_error")
        attempt.outcome = step
        self._ended.append(attempt)


def _scopes_about_others(outcomes: Iterable[Outcome]) -> list[Scope]:
    """The scopes of the outcomes that are about more than their account. The caller must see these outcomes before
    further requests start."""
    return [outcome.scope for outcome in outcomes if outcome.scope.is_about_others]


class Identity:
    """The identity platform for all app registrations of this process. Thread-safe; create it after a fork."""

    def __init__(
        self,
        registrations: Sequence[Registration],
        *,
        ca_bundle: Path | None = None,
        connections: int = 32,
        endpoint_hosts: Collection[str] = (),
        proxies: ProxyRules = DIRECT,
    ) -> None:
        self._registrations = {registration.name: registration for registration in registrations}
        self._pool = CurlPool(ca_bundle=ca_bundle, connections=connections, proxies=proxies)
        self._apps = MsalApps(self._registrations, self._pool, endpoint_hosts=endpoint_hosts)
        self._window = ConcurrencyWindow(connections)
        self._order = CredentialOrder(self._registrations)

    def refresh_all(
        self,
        requests: Iterator[tuple[Key, TokenRequest]],
        *,
        expected: Iterable[tuple[str, str | None]] = (),
        now: Callable[[], datetime],
    ) -> Iterator[list[RefreshAttempt[Key]]]:
        """Spend refresh tokens, many at a time. Yields ended attempts in groups; each has an Outcome.

        A request is taken from the iterator only when there is a connection for it. Exhaust the result, because the
        responses under way are lost if it is dropped. ``expected``: the clients and authorities of the requests, so
        that missing metadata can be fetched side by side.
        """
        builder = RequestBuilder(self._registrations, self._apps, self._order, now=now)
        builder.prepare(expected)
        return RequestPipeline(requests, builder=builder, pool=self._pool, window=self._window).run()

    def validate(self, *, client: str, authority: str | None, scopes: tuple[str, ...]) -> None:
        """Refuse what could never be refreshed. Raises InvalidInput."""
        registration = self._registrations.get(client)
        if registration is None:
            known = ", ".join(sorted(self._registrations))
            msg = f"the app registration is not configured; there are: {known}"
            raise InvalidInput(msg)
        if authority is not None:
            registration.check_authority(authority)
        check_scopes(scopes, oidc=registration.oidc)

    def check(self, client: str) -> None:
        """Fetch the registration's OpenID metadata, as a diagnosis. Raises ConfigurationError saying what failed."""
        registration = self._registrations[client]
        try:
            self._apps.get((client, 0, registration.authority))
        except DiscoveryFailed as error:
            msg = _unusable(registration.authority, error)
            raise ConfigurationError(msg) from None

    def server_time(self, client: str) -> datetime | None:
        """The clock of the authority's host; None if it cannot be reached, or does not send the time."""
        host = urlsplit(self._registrations[client].authority).netloc
        with suppress(TransferError):
            return self._pool.request(HttpRequest(f"https://{host}/", ())).date
        return None

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(self._registrations)

    def client_ids(self) -> dict[str, str]:
        """The name of each app registration by its client id; of several with one id, the first."""
        return {each.client_id: name for name, each in reversed(self._registrations.items())}

    def start_device_flow(self, client: str) -> DeviceFlow:
        """Begin a sign-in on another device. Raises ConfigurationError if the platform does not start one."""
        registration = self._registrations[client]
        try:
            app = self._apps.get((client, PUBLIC_CLIENT, registration.authority))
            return DeviceFlow.start(app, registration.scopes)
        except DiscoveryFailed as error:
            msg = f"the device code flow cannot be started: {_unusable(registration.authority, error)}"
            raise ConfigurationError(msg) from error
        except (TransferError, ValueError) as error:
            msg = f"the device code flow cannot be started: {registration.authority} does not answer as it should"
            raise ConfigurationError(msg) from error

    def close(self) -> None:
        self._pool.close()


def _unusable(authority: str, error: DiscoveryFailed) -> str:
    code = error.outcome.code
    return f"the OpenID metadata of {authority} cannot be used ({code}). {hint(code)}"
