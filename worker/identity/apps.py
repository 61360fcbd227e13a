"""The MSAL apps of this process: one per registration, credential and authority, made once its metadata are known."""

import threading
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msal

from worker.domain.errors import InvalidInput
from worker.domain.outcome import Misconfigured, Scope, Transient
from worker.identity.http import TokenEndpoint
from worker.identity.registration import Registration
from worker.identity.wire import WireError

# Kept per process, or as many as the largest batch has needed: one per registration and authority, i.e. per tenant if
# accounts name theirs.
_APPS = 256
_AT_ONCE = 16

# A grant from the device code flow belongs to the app as a public client, which must not show a credential.
PUBLIC = -1

AppKey = tuple[str, int, str]  # registration, number of its credential, authority


class Discovery(Exception):
    """The metadata of an authority cannot be had; ``outcome`` is what that means for its accounts."""

    def __init__(self, outcome: Transient | Misconfigured) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


class Apps:
    """Thread-safe."""

    def __init__(self, http: TokenEndpoint) -> None:
        self._http = http
        self._apps: OrderedDict[AppKey, msal.ClientApplication] = OrderedDict()
        self._making: dict[AppKey, _Making] = {}
        self._most = _APPS
        self._lock = threading.Lock()

    def get(self, registration: Registration, number: int, authority: str) -> msal.ClientApplication:
        """Raises Discovery, or InvalidInput for an authority that the registration's credential must not be shown."""
        key = registration.name, number, authority
        with self._lock:
            if (app := self._apps.get(key)) is not None:
                self._apps.move_to_end(key)
                return app
            making = self._making.setdefault(key, _Making())
            attempts = making.attempts
        with making.lock:  # the first asks for the metadata, the others of this authority wait for it
            with self._lock:
                if (app := self._apps.get(key)) is not None:
                    return app
            if making.failure is not None and making.attempts > attempts:
                raise making.failure  # it failed while we waited: asking in turn would take the time of all together
            try:
                app = self._make(registration, number, authority)
            except Discovery as error:
                making.failure = error
                raise
            finally:
                making.attempts += 1
            with self._lock:
                self._apps[key] = app
                while len(self._apps) > self._most:
                    self._making.pop(self._apps.popitem(last=False)[0], None)
            return app

    def prepare(self, wanted: Collection[tuple[Registration, int, str]]) -> dict[AppKey, Discovery]:
        """Make the apps that are missing, several at a time, and keep the others. Returns those that could not be made
        now."""
        keys = {(registration.name, number, authority): registration for registration, number, authority in wanted}
        with self._lock:
            self._most = max(self._most, len(keys))
            missing = [key for key in keys if key not in self._apps]
            for key in keys.keys() - missing:  # or the missing ones would take their places
                self._apps.move_to_end(key)
        if not missing:
            return {}
        failed: dict[AppKey, Discovery] = {}

        def make(key: AppKey) -> None:
            with suppress(InvalidInput):  # whoever asks for it is told
                try:
                    self.get(keys[key], *key[1:])
                except Discovery as error:
                    failed[key] = error

        with ThreadPoolExecutor(min(len(missing), _AT_ONCE)) as pool:
            list(pool.map(make, missing))
        return failed

    def _make(self, registration: Registration, number: int, authority: str) -> msal.ClientApplication:
        registration.check_authority(authority)
        self._http.forget()
        kind: Any = msal.PublicClientApplication
        if number != PUBLIC:
            credential = registration.credentials[number].for_msal()
            kind = partial(msal.ConfidentialClientApplication, client_credential=credential)
        try:
            return kind(
                registration.client_id,
                **registration.authority_arguments(authority),
                http_client=self._http,
                token_cache=_NoTokenCache(),
                http_cache=_NoHttpCache(),
            )
        except WireError as error:
            raise Discovery(Transient(code=error.code, scope=Scope.NETWORK)) from None
        except Exception as error:  # whatever MSAL meets in a page that is no metadata: TypeError, RecursionError, ...
            raise Discovery(self._http.discovery_outcome()) from error


@dataclass(slots=True)
class _Making:
    """The making of one app, and how it went for whoever waits for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    attempts: int = 0
    failure: Discovery | None = None


class _NoTokenCache(msal.TokenCache):  # type: ignore[misc]  # msal has no types
    """MSAL's cache keeps the tokens of every account for ever, in the clear; ours is Postgres."""

    def add(self, event: dict[str, Any], **_: object) -> None:
        pass


class _NoHttpCache(dict[str, Any]):
    """MSAL would replay remembered failures and hide Retry-After; pacing is the row's due time."""

    def __setitem__(self, key: str, value: object) -> None:
        pass
