"""Refreshes tokens: a TokenRequest in, an Outcome out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from worker.domain.errors import ConfigurationError, InvalidInput
from worker.identity.curl import CurlPool, TransferError
from worker.identity.device_flow import DeviceFlow
from worker.identity.msal_apps import PUBLIC_CLIENT, DiscoveryFailed, MsalApps
from worker.identity.pipeline import ConcurrencyWindow, RequestPipeline
from worker.identity.registration import Registration, check_scopes
from worker.identity.requests import CredentialOrder, RequestBuilder
from worker.identity.token_request import RefreshAttempt, TokenRequest

Key = TypeVar("Key")


class Identity:
    """The identity platform for all app registrations of this process. Thread-safe; create it after a fork."""

    def __init__(
        self, registrations: Sequence[Registration], *, ca_bundle: Path | None = None, connections: int = 32
    ) -> None:
        self._registrations = {registration.name: registration for registration in registrations}
        self._pool = CurlPool(ca_bundle=ca_bundle, connections=connections)
        self._apps = MsalApps(self._registrations, self._pool)
        self._window = ConcurrencyWindow(connections)
        self._order = CredentialOrder(self._registrations)

    def refresh_all(
        self,
        requests: Iterator[tuple[Key, TokenRequest]],
        *,
        expected: Iterable[tuple[str, str | None]] = (),
        now: Callable[[], datetime],
    ) -> Iterator[list[RefreshAttempt[Key]]]:
        """Spend refresh tokens, many at a time. Yields ended attempts in groups; each has an Outcome, whatever came.

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
        check_scopes(scopes)

    def check(self, client: str) -> None:
        """Fetch the registration's OpenID metadata, as a diagnosis. Raises ConfigurationError saying what failed."""
        registration = self._registrations[client]
        try:
            self._apps.get((client, 0, registration.authority))
        except DiscoveryFailed as error:
            msg = f"{registration.authority} does not answer OpenID discovery ({error.outcome.code})"
            raise ConfigurationError(msg) from None

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(self._registrations)

    def start_device_flow(self, client: str) -> DeviceFlow:
        """Begin a sign-in on another device. Raises ConfigurationError if the platform does not start one."""
        registration = self._registrations[client]
        try:
            app = self._apps.get((client, PUBLIC_CLIENT, registration.authority))
            return DeviceFlow.start(app, registration.scopes)
        except (DiscoveryFailed, TransferError, ValueError) as error:
            msg = f"the device code flow cannot be started: {registration.authority} does not answer as it should"
            raise ConfigurationError(msg) from error

    def close(self) -> None:
        self._pool.close()
