"""MSAL in, Outcome out."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msal
from urllib3.exceptions import HTTPError

from worker.domain.credential import Secret
from worker.domain.errors import ConfigurationError, InvalidInput
from worker.domain.microsoft import CREDENTIAL_CODES, Answer, classify
from worker.domain.outcome import Misconfigured, Outcome, Refreshed, Scope, Transient
from worker.identity.http import NotForMsal, TokenEndpoint, network_code
from worker.identity.registration import Registration, check_scopes

_APPS = 256  # MSAL apps kept per process: one per registration and authority, i.e. per tenant if accounts name theirs
_OK = 200

# A grant from the device code flow belongs to the app as a public client, which must not show a credential.
_PUBLIC = -1
_IS_PUBLIC = "AADSTS700025"


class Identity:
    """The token endpoint for all registrations of this process. Thread-safe; make it after a fork."""

    def __init__(
        self, registrations: Sequence[Registration], *, ca_bundle: Path | None = None, connections: int = 32
    ) -> None:
        self._registrations = {registration.name: registration for registration in registrations}
        self._http = TokenEndpoint(ca_bundle=ca_bundle, connections=connections)
        self._apps: OrderedDict[tuple[str, int, str], msal.ClientApplication] = OrderedDict()
        self._making: dict[tuple[str, int, str], _Making] = {}
        self._preferred: dict[str, int] = {}
        self._lock = threading.Lock()

    def refresh(
        self,
        refresh_token: Secret,
        *,
        client: str,
        authority: str | None,
        scopes: Sequence[str],
        now: Callable[[], datetime],
    ) -> Outcome:
        """Spend one refresh token. Every answer, and every failure to get one, comes back as an Outcome."""
        registration = self._registrations.get(client)
        if registration is None:
            return Misconfigured(code="unknown_client", scope=Scope.TENANT)  # our own lack, and no fault of the app's
        wanted = list(scopes or registration.scopes)

        def ask(number: int) -> Outcome:
            return self._ask_with(
                registration,
                number,
                authority or registration.authority,
                lambda app: app.acquire_token_by_refresh_token(refresh_token.reveal(), wanted),
                now,
            )

        outcome: Outcome = Misconfigured(code="no_credential")
        for number in self._order(registration):
            outcome = ask(number)
            if not _refuses_credential(outcome):
                break
            self._preferred[client] = (number + 1) % len(registration.credentials)
        return ask(_PUBLIC) if outcome.code == _IS_PUBLIC else outcome

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
            self._app(registration, 0, registration.authority)
        except _Discovery as error:
            msg = f"{registration.authority} does not answer OpenID discovery ({error.outcome.code})"
            raise ConfigurationError(msg) from None

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(self._registrations)

    def start_device_flow(self, client: str) -> "DeviceFlow":
        """Begin a sign-in on another device. Raises ConfigurationError if the platform refuses to start one."""
        registration = self._registrations[client]
        try:
            app = self._app(registration, _PUBLIC, registration.authority)
            flow = app.initiate_device_flow(scopes=list(registration.scopes))
        except (_Discovery, HTTPError, ValueError) as error:
            msg = f"the device code flow cannot be started: {registration.authority} does not answer as it should"
            raise ConfigurationError(msg) from error
        if "user_code" not in flow:
            msg = f"the device code flow cannot be started: {flow.get('error', 'no user code in the answer')}"
            raise ConfigurationError(msg)
        return DeviceFlow(message=str(flow["message"]), _app=app, _flow=flow)

    def close(self) -> None:
        self._http.close()

    def _order(self, registration: Registration) -> list[int]:
        """The numbers of the credentials, the one that worked last first."""
        preferred = self._preferred.get(registration.name, 0)
        return sorted(range(len(registration.credentials)), key=lambda number: number != preferred)

    def _ask_with(
        self,
        registration: Registration,
        number: int,
        authority: str,
        question: Callable[[msal.ClientApplication], object],
        now: Callable[[], datetime],
    ) -> Outcome:
        try:
            app = self._app(registration, number, authority)
        except InvalidInput:
            return Misconfigured(code="authority_refused", scope=Scope.TENANT)
        except _Discovery as error:
            return error.outcome
        return self._ask(now, lambda: question(app))

    def _ask(self, now: Callable[[], datetime], call: Callable[[], object]) -> Outcome:
        obtained_at = now()
        self._http.forget()
        try:
            call()
        except NotForMsal:
            pass  # the answer says all; MSAL would only have choked on it
        except HTTPError as error:
            return Transient(code=network_code(error), scope=Scope.NETWORK)
        except Exception:
            if self._http.answer is None:
                raise
        answer = self._http.answer
        self._http.forget()  # it holds tokens
        if answer is None:
            return Transient(code="no_request")
        return classify(answer, obtained_at=obtained_at)

    def _app(self, registration: Registration, number: int, authority: str) -> msal.ClientApplication:
        key = registration.name, number, authority
        with self._lock:
            making = self._making.setdefault(key, _Making())
            attempts = making.attempts
        with making.lock:  # the first of a batch asks for the metadata, the others of this authority wait for it
            with self._lock:
                if (app := self._apps.get(key)) is not None:
                    self._apps.move_to_end(key)
                    return app
            if making.failure is not None and making.attempts > attempts:
                raise making.failure  # it failed while we waited: asking in turn would take the time of all together
            try:
                app = self._make_app(registration, number, authority)
            except _Discovery as error:
                making.failure = error
                raise
            finally:
                making.attempts += 1
            with self._lock:
                self._apps[key] = app
                while len(self._apps) > _APPS:
                    self._making.pop(self._apps.popitem(last=False)[0], None)
            return app

    def _make_app(self, registration: Registration, number: int, authority: str) -> msal.ClientApplication:
        registration.check_authority(authority)
        self._http.forget()
        kind: Any = msal.PublicClientApplication
        if number != _PUBLIC:
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
        except HTTPError as error:
            raise _Discovery(Transient(code=network_code(error), scope=Scope.NETWORK)) from None
        except Exception as error:
            raise _Discovery(self._http.discovery_outcome()) from error


def _refuses_credential(outcome: Outcome) -> bool:
    """Whether another credential of the same app registration may fare better."""
    return isinstance(outcome, Misconfigured) and outcome.code in CREDENTIAL_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFlow:
    """A sign-in under way: show ``message``, then wait."""

    message: str
    _app: msal.ClientApplication
    _flow: dict[str, Any] = field(repr=False)

    def wait(self, now: Callable[[], datetime]) -> "SignedIn":
        """Poll until the user has signed in. Raises InvalidInput if they declined or took too long."""
        started = now()
        result = self._app.acquire_token_by_device_flow(self._flow)
        if "access_token" not in result:
            msg = f"the sign-in did not finish: {result.get('error', 'no answer')}"
            raise InvalidInput(msg)
        tokens = classify(Answer(status=_OK, body=result), obtained_at=started)
        if not isinstance(tokens, Refreshed) or tokens.refresh_token is None:
            raise InvalidInput("the sign-in gave no refresh token; is offline_access allowed for this app?")
        username = (result.get("id_token_claims") or {}).get("preferred_username")
        return SignedIn(tokens=tokens, refresh_token=tokens.refresh_token, username=username)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """What a finished sign-in gave, and who signed in, if Microsoft said so."""

    tokens: Refreshed
    refresh_token: Secret
    username: str | None


@dataclass(slots=True)
class _Making:
    """The making of one MSAL app, and how it went for whoever waits for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    attempts: int = 0
    failure: "_Discovery | None" = None


class _Discovery(Exception):
    def __init__(self, outcome: Transient | Misconfigured) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


class _NoTokenCache(msal.TokenCache):  # type: ignore[misc]  # msal has no types
    """MSAL's cache keeps the tokens of every account for ever, in the clear; ours is Postgres."""

    def add(self, event: dict[str, Any], **_: object) -> None:
        pass


class _NoHttpCache(dict[str, Any]):
    """MSAL would replay remembered failures and hide Retry-After; pacing is the row's due time."""

    def __setitem__(self, key: str, value: object) -> None:
        pass
