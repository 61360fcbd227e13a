"""The HTTP requests of one ``Identity.refresh_all``, and what their responses mean."""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote_plus, urlencode
from uuid import uuid4

import msal

from worker.domain.client_type import ClientType, required_type
from worker.domain.errors import InvalidInput
from worker.domain.http import HttpResponse
from worker.domain.microsoft import CREDENTIAL_CODES, Verdict, classify
from worker.domain.outcome import Misconfigured, Outcome, ReauthRequired, Scope, Transient
from worker.domain.token import Secret
from worker.identity.curl import FORM_TYPE, HttpRequest, TransferError, header_lines, with_query
from worker.identity.msal_apps import PUBLIC_CLIENT, AppKey, DiscoveryFailed, MsalApps
from worker.identity.registration import AssertionUnreadable, Registration
from worker.identity.token_request import RefreshAttempt, TokenRequest

_LIFETIME = timedelta(seconds=10)  # MSAL's client assertions are valid for a minute more at least
_CORRELATION_ID = "client-request-id"
_PER_REQUEST_HEADERS = frozenset({_CORRELATION_ID, "x-client-last-telemetry"})  # the latter reports another account
# Microsoft redeems the grant of a single page app if the request has an Origin, as a browser's has.
_ORIGIN = ("Origin: http://localhost",)
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
        self._templates: dict[tuple[AppKey, tuple[str, ...], ClientType], RequestTemplate] = {}

    def prepare(self, endpoints: Iterable[tuple[str, str | None]]) -> None:
        """Fetch the missing metadata for these clients and authorities, several at a time."""
        self._failures |= self._apps.prepare(
            (client, order[0], authority or self._registrations[client].authority)
            for client, authority in endpoints
            if (order := self._order.of(client))
        )

    def attempt(self, key: Key, request: TokenRequest) -> RefreshAttempt[Key]:
        return RefreshAttempt(key, request, request.client_type, self._credentials(request.client, request.client_type))

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
        template = self._template(app, tuple(request.scopes or registration.scopes), attempt.client_type, now)
        return template.for_token(request.refresh_token) if isinstance(template, RequestTemplate) else template

    def proceed(self, attempt: RefreshAttempt[Any], result: HttpResponse | TransferError) -> HttpRequest | Outcome:
        """The meaning of a response, or the next request: with another credential if this one was refused, or as
        another type of client if the grant belongs to one."""
        if isinstance(result, TransferError):
            return Transient(code=result.code, scope=Scope.NETWORK)
        own = _own_choices(attempt.request, self._registrations[attempt.request.client])
        outcome = classify(result, obtained_at=attempt.requested_at, own=own)
        if is_refused_credential := _is_refused_credential(outcome) and attempt.client_type is ClientType.CONFIDENTIAL:
            self._order.put_last(attempt.request.client, attempt.credentials[0])
            attempt.credentials = attempt.credentials[1:]
            if attempt.credentials:
                return self.build(attempt)
        if self._changes_type(attempt, outcome):
            return self.build(attempt)
        if attempt.refusals and isinstance(outcome, Misconfigured) and not is_refused_credential:
            return _of_account(next(iter(attempt.refusals.values())))
        return outcome

    def _changes_type(self, attempt: RefreshAttempt[Any], outcome: Outcome) -> bool:
        """Whether the refusal asks for another type of client that was not tried yet. The attempt has it then."""
        required = required_type(outcome.code) if isinstance(outcome, Misconfigured | ReauthRequired) else None
        credentials = self._credentials(attempt.request.client, required) if required else ()
        if required is None or not credentials or required in {*attempt.refusals, attempt.client_type}:
            return False
        attempt.refusals[attempt.client_type] = outcome
        attempt.client_type, attempt.credentials = required, credentials
        return True

    def _credentials(self, client: str, client_type: ClientType) -> tuple[int, ...]:
        return self._order.of(client) if client_type is ClientType.CONFIDENTIAL else (PUBLIC_CLIENT,)

    def _template(
        self, app: AppKey, scopes: tuple[str, ...], client_type: ClientType, now: datetime
    ) -> RequestTemplate | Outcome:
        """The template, or the outcome of all accounts that need it."""
        key = app, scopes, client_type
        template = self._templates.get(key)
        if template is not None and template.is_fresh(now):
            return template
        try:
            template = capture(self._apps.get(app), scopes, now=now)
        except InvalidInput:
            return Misconfigured(code="authority_refused", scope=Scope.TENANT)
        except AssertionUnreadable:
            return Misconfigured(code="assertion_unreadable")
        except DiscoveryFailed as error:
            self._failures[app] = error.outcome  # trying again for each account would add up their time limits
            return error.outcome
        if client_type is ClientType.SPA:
            template = replace(template, headers=(*template.headers, *_ORIGIN))
        self._templates[key] = template
        return template


def _is_refused_credential(outcome: Outcome) -> bool:
    return isinstance(outcome, Misconfigured) and outcome.code in CREDENTIAL_CODES


def _of_account(refusal: Outcome) -> Outcome:
    """The first refusal of a grant that the platform takes from no type of client: the others work with theirs."""
    return replace(refusal, scope=Scope.ACCOUNT) if isinstance(refusal, Misconfigured) else refusal


def _own_choices(request: TokenRequest, registration: Registration) -> list[Verdict]:
    """The verdicts that would be the account's own fault."""
    own = []
    if tuple(request.scopes) not in ((), registration.scopes):
        own.append(Verdict.SCOPES_REFUSED)
    if request.authority not in (None, registration.authority):
        own.append(Verdict.AUTHORITY_REFUSED)
    return own
