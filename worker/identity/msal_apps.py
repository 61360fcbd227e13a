"""The MSAL apps of this process: one per app registration, credential and authority, cached with their metadata."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import msal

from worker.domain.errors import InvalidInput
from worker.domain.outcome import Misconfigured, Outcome, Scope, Transient
from worker.identity.curl import CurlPool, TransferError
from worker.identity.endpoints import EndpointRefused
from worker.identity.msal_transport import MsalTransport
from worker.identity.registration import Registration

# Apps kept per process, or as many as the largest batch has needed. There is one per tenant if accounts name theirs.
_MAX_APPS = 256
_PARALLEL_DISCOVERIES = 16

#: Instead of the number of a credential: the app as a public client, which must not send one.
PUBLIC_CLIENT = -1

AppKey = tuple[str, int, str]  # client, number of its credential or PUBLIC_CLIENT, authority


class DiscoveryFailed(Exception):
    """The metadata of an authority are not available or not usable; ``outcome`` is what that means for its accounts."""

    def __init__(self, outcome: Transient | Misconfigured) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


class MsalApps:
    """Thread-safe."""

    def __init__(
        self, registrations: Mapping[str, Registration], pool: CurlPool, *, endpoint_hosts: Collection[str]
    ) -> None:
        self._registrations = registrations
        self._pool = pool
        self._endpoint_hosts = endpoint_hosts
        self._apps: OrderedDict[AppKey, Future[msal.ClientApplication]] = OrderedDict()
        self._max_apps = _MAX_APPS
        self._lock = threading.Lock()

    def get(self, key: AppKey) -> msal.ClientApplication:
        """The app, created if it is missing. Threads that want the same app wait for one creation and its result.

        Raises DiscoveryFailed, or InvalidInput for an authority to which the credential must not be sent.
        """
        app, is_new = self._reserve(key)
        if is_new:
            self._fill(app, key)
        return app.result()

    def prepare(self, keys: Iterable[AppKey]) -> dict[AppKey, Outcome]:
        """Create the missing apps, several at a time, and keep the others. Returns what failed discoveries mean."""
        failures: dict[AppKey, Outcome] = {}

        def create(key: AppKey) -> None:
            with suppress(InvalidInput):  # ``get`` raises it again for each account concerned
                try:
                    self.get(key)
                except DiscoveryFailed as error:
                    failures[key] = error.outcome

        if missing := self._missing(set(keys)):
            with ThreadPoolExecutor(min(len(missing), _PARALLEL_DISCOVERIES)) as executor:
                list(executor.map(create, missing))
        return failures

    def _reserve(self, key: AppKey) -> tuple[Future[msal.ClientApplication], bool]:
        """The app, which another thread may be creating; True if the caller has to create it."""
        with self._lock:
            if (app := self._apps.get(key)) is not None:
                self._apps.move_to_end(key)
                return app, False
            app = self._apps[key] = Future()
            return app, True

    def _fill(self, app: Future[msal.ClientApplication], key: AppKey) -> None:
        try:
            app.set_result(self._create(key))
        except BaseException as error:  # noqa: BLE001 - ``get`` raises it, in this thread and in those that wait
            with self._lock:  # the next call tries again
                self._apps.pop(key, None)
            app.set_exception(error)
        with self._lock:
            while len(self._apps) > self._max_apps:
                self._apps.popitem(last=False)

    def _missing(self, keys: set[AppKey]) -> set[AppKey]:
        with self._lock:
            self._max_apps = max(self._max_apps, len(keys))
            available = {key for key in keys if key in self._apps and self._apps[key].done()}
            for key in available:  # or the missing ones would evict them
                self._apps.move_to_end(key)
        return keys - available

    def _create(self, key: AppKey) -> msal.ClientApplication:
        client, number, authority = key
        registration = self._registrations[client]
        registration.check_authority(authority)
        kind: Any = msal.PublicClientApplication
        if number != PUBLIC_CLIENT:
            credential = registration.credentials[number].for_msal()
            kind = partial(msal.ConfidentialClientApplication, client_credential=credential)
        transport = MsalTransport(self._pool, authority=authority, endpoint_hosts=self._endpoint_hosts)
        try:
            return kind(
                registration.client_id,
                **registration.authority_arguments(authority),
                http_client=transport,
                token_cache=_NoTokenCache(),
                http_cache=_NoHttpCache(),
            )
        except TransferError as error:
            raise DiscoveryFailed(Transient(code=error.code, scope=Scope.NETWORK)) from None
        except EndpointRefused:
            raise DiscoveryFailed(Misconfigured(code="endpoint_refused", scope=Scope.TENANT)) from None
        except Exception as error:  # MSAL raises TypeError, RecursionError and others for a page that is no metadata
            raise DiscoveryFailed(transport.discovery_outcome()) from error


class _NoTokenCache(msal.TokenCache):  # type: ignore[misc]  # msal has no types
    """MSAL's cache would keep the tokens of every account forever and in the clear. Postgres stores them instead."""

    def add(self, event: dict[str, Any], **_: object) -> None:
        pass


class _NoHttpCache(dict[str, Any]):
    """MSAL would replay remembered failures and hide Retry-After. The account's due time decides when to try again."""

    def __setitem__(self, key: str, value: object) -> None:
        pass
