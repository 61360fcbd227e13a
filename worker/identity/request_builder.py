"""Builds the HTTP requests of one ``Identity.refresh_all`` and reads their responses."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from worker.domain.errors import InvalidInput
from worker.domain.http import HttpResponse
from worker.domain.microsoft import CREDENTIAL_CODES, Verdict, belongs_to_public_client, classify
from worker.domain.outcome import Misconfigured, Outcome, Scope, Transient
from worker.identity.curl import HttpRequest, TransferError
from worker.identity.msal_apps import PUBLIC_CLIENT, AppKey, DiscoveryFailed, MsalApps
from worker.identity.registration import Registration
from worker.identity.request_template import RequestTemplate, capture
from worker.identity.token_request import RefreshAttempt, TokenRequest

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
        outcome = self._read(attempt, result)
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

    def _read(self, attempt: RefreshAttempt[Any], result: HttpResponse | TransferError) -> Outcome:
        if isinstance(result, TransferError):
            return Transient(code=result.code, scope=Scope.NETWORK)
        request = attempt.request
        own = _own_choices(request, self._registrations[request.client])
        return classify(result, obtained_at=attempt.requested_at, own=own)


def _own_choices(request: TokenRequest, registration: Registration) -> list[Verdict]:
    """The verdicts that would be the account's own fault."""
    own = []
    if tuple(request.scopes) not in ((), registration.scopes):
        own.append(Verdict.SCOPES_REFUSED)
    if request.authority not in (None, registration.authority):
        own.append(Verdict.AUTHORITY_REFUSED)
    return own
