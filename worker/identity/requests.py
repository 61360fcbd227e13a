"""The HTTP requests of one ``Identity.refresh_all``, and what their responses mean."""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote_plus, urlencode
from uuid import uuid4

import msal

from worker.domain.errors import InvalidInput
from worker.domain.http import HttpResponse
from worker.domain.microsoft import CREDENTIAL_CODES, Verdict, belongs_to_public_client, classify
from worker.domain.outcome import Misconfigured, Outcome, Scope, Transient
from worker.domain.token import Secret
from worker.identity.curl import FORM_TYPE, HttpRequest, TransferError, header_lines, with_query
from worker.identity.msal_apps import PUBLIC_CLIENT, AppKey, DiscoveryFailed, MsalApps
from worker.identity.registration import Registration
from worker.identity.token_request import RefreshAttempt, TokenRequest

_LIFETIME = timedelta(seconds=10)  # MSAL's client assertions are valid for a minute more at least
_CORRELATION_ID = "client-request-id"
_PER_REQUEST_HEADERS = frozenset({_CORRELATION_ID, "x-client-last-telemetry"})  # the latter reports another account
_UNRESERVED = f"{string.ascii_letters}{string.digits}-._~".encode()  # RFC 3986 2.3


def _correlation_ids() -> Iterator[str]:
    """Unique UUIDs: a random one, of which only the end changes from request to request."""
    prefix = str(uuid4())[:-12]
    return (f"{prefix}{number:012x}" for number in count())


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """A token request for any refresh token of one app, authority and set of scopes.

    MSAL's requests differ in two things only, the refresh token and the correlation id, and each takes MSAL a tenth of
    a refresh's CPU.
    """

    url: str
    headers: tuple[str, ...] = field(repr=False)
    form: str = field(repr=False)
    captured_at: datetime
    _ids: Iterator[str] = field(default_factory=_correlation_ids, repr=False)

    def is_fresh(self, now: datetime) -> bool:
        return timedelta(0) <= now - self.captured_at < _LIFETIME

    def for_token(self, refresh_token: Secret) -> HttpRequest:
        """The request that spends this refresh token."""
        headers = (*self.headers, f"{_CORRELATION_ID}: {next(self._ids)}")
        return HttpRequest(self.url, headers, f"{self.form}&refresh_token={_form_value(refresh_token.reveal())}")


def capture(app: msal.ClientApplication, scopes: Sequence[str], *, now: datetime) -> RequestTemplate:
    """Let MSAL write a token request, and interrupt it before it sends the request. Raises what MSAL raises.

    MSAL never sees the response: it raises after a refresh token was rotated if anything else in the response is odd,
    reports one account's error in the next one's request, and logs tokens.
    """
    request: dict[str, Any] = {}

    def post(url: str, **arguments: Any) -> NoReturn:
        request.update(arguments, url=url)
        raise _Captured

    with suppress(_Captured):
        app.acquire_token_by_refresh_token("placeholder", list(scopes), post=post)
    if not request:
        raise RuntimeError("MSAL has sent no token request")
    headers = {name: value for name, value in request["headers"].items() if name not in _PER_REQUEST_HEADERS}
    form = {name: value for name, value in request["data"].items() if name != "refresh_token"}
    url = with_query(request["url"], request.get("params"))
    return RequestTemplate(url, header_lines({**headers, **FORM_TYPE}), urlencode(form), now)


class _Captured(Exception):
    """Interrupts MSAL. Carries nothing, because the request contains the client secret."""


def _form_value(text: str) -> str:
    """The value encoded for a form. Refresh tokens need no escapes, which quote_plus finds out five times as slowly."""
    if text.isascii() and not text.encode().translate(None, _UNRESERVED):
        return text
    return quote_plus(text)


Key = TypeVar("Key")


class CredentialOrder:
    """In which order each registration's credentials are tried. Thread-safe."""

    def __init__(self, registrations: Mapping[str, Registration]) -> None:
        self._orders = {name: tuple(range(len(each.credentials))) for name, each in registrations.items()}

    def of(self, client: str) -> tuple[int, ...]:
        """The numbers of its credentials; empty for an unknown client."""
        return self._orders.get(client, ())

    def put_last(self, client: str, number: int) -> None:
        """Further requests begin with the credential after this one."""
        numbers = range(len(self._orders[client]))
        self._orders[client] = (*numbers[number + 1 :], *numbers[: number + 1])


class RequestBuilder:
    """Keeps what its requests have in common: templates, and the authorities whose metadata are not available."""

    def __init__(
        self,
        registrations: Mapping[str, Registration],
        apps: MsalApps,
        order: CredentialOrder,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._registrations = registrations
        self._apps = apps
        self._order = order
        self._now = now
        self._failures: dict[AppKey, Outcome] = {}
        self._templates: dict[tuple[AppKey, tuple[str, ...]], RequestTemplate] = {}

    def prepare(self, endpoints: Iterable[tuple[str, str | None]]) -> None:
        """Fetch the missing metadata for these clients and authorities, several at a time."""
        self._failures |= self._apps.prepare(
            (client, order[0], authority or self._registrations[client].authority)
            for client, authority in endpoints
            if (order := self._order.of(client))
        )

    def attempt(self, key: Key, request: TokenRequest) -> RefreshAttempt[Key]:
        return RefreshAttempt(key, request, self._order.of(request.client))

    def build(self, attempt: RefreshAttempt[Any]) -> HttpRequest | Outcome:
        """The attempt's HTTP request, or the outcome if there is none to be sent. Raises what MSAL raises."""
        request = attempt.request
        attempt.requested_at = now = self._now()
        registration = self._registrations.get(request.client)
        if registration is None:  # this worker lacks it, and the app is not at fault
            return Misconfigured(code="unknown_client", scope=Scope.TENANT)
        if not attempt.credentials:
            return Misconfigured(code="no_credential")
        app = request.client, attempt.credentials[0], request.authority or registration.authority
        if app in self._failures:
            return self._failures[app]
        try:
            template = self._template(app, tuple(request.scopes or registration.scopes), now)
        except InvalidInput:
            return Misconfigured(code="authority_refused", scope=Scope.TENANT)
        except DiscoveryFailed as error:
            self._failures[app] = error.outcome  # trying again for each account would add up their time limits
            return error.outcome
        return template.for_token(request.refresh_token)

    def proceed(self, attempt: RefreshAttempt[Any], result: HttpResponse | TransferError) -> HttpRequest | Outcome:
        """The meaning of a response, or the request with the next credential if this one was refused."""
        if isinstance(result, TransferError):
            return Transient(code=result.code, scope=Scope.NETWORK)
        own = _own_choices(attempt.request, self._registrations[attempt.request.client])
        outcome = classify(result, obtained_at=attempt.requested_at, own=own)
        used = attempt.credentials[0]
        if used == PUBLIC_CLIENT:
            # If the platform refuses both ways, the first refusal says more, and the account alone is concerned.
            return attempt.refusal if attempt.refusal and isinstance(outcome, Misconfigured) else outcome
        if isinstance(outcome, Misconfigured) and belongs_to_public_client(outcome):
            attempt.credentials, attempt.refusal = (PUBLIC_CLIENT,), outcome
            return self.build(attempt)
        if isinstance(outcome, Misconfigured) and outcome.code in CREDENTIAL_CODES:
            self._order.put_last(attempt.request.client, used)
            attempt.credentials = attempt.credentials[1:]
            return self.build(attempt) if attempt.credentials else outcome
        return outcome

    def _template(self, app: AppKey, scopes: tuple[str, ...], now: datetime) -> RequestTemplate:
        """Raises InvalidInput or DiscoveryFailed."""
        template = self._templates.get((app, scopes))
        if template is None or not template.is_fresh(now):
            template = self._templates[app, scopes] = capture(self._apps.get(app), scopes, now=now)
        return template


def _own_choices(request: TokenRequest, registration: Registration) -> list[Verdict]:
    """The verdicts that would be the account's own fault."""
    own = []
    if tuple(request.scopes) not in ((), registration.scopes):
        own.append(Verdict.SCOPES_REFUSED)
    if request.authority not in (None, registration.authority):
        own.append(Verdict.AUTHORITY_REFUSED)
    return own
