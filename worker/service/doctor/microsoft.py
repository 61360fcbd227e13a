"""Examines the app registrations: their metadata, and each of their credentials by a token request."""

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from worker.domain.account import DEFAULT_CLIENT
from worker.domain.codes import hint
from worker.domain.errors import ConfigurationError, WorkerError
from worker.domain.finding import Finding, failed, ok, warning
from worker.domain.microsoft import CREDENTIAL_CODES
from worker.domain.outcome import Misconfigured, Outcome, Throttled, Transient
from worker.domain.proxy import ProxyRules
from worker.domain.token import Secret
from worker.identity import Identity, TokenRequest
from worker.identity.registration import ClientCredential, Registration
from worker.service.accounts.events import Ledger

_NO_TOKEN = Secret("token-worker-doctor")  # Microsoft refuses it, after it has checked the credential
_EXPIRES_SOON = timedelta(days=30)


class RegistrationArea:
    """Sends one token request with each credential. An answer about the grant proves the credential."""

    def __init__(
        self,
        registration: Registration,
        *,
        ca_bundle: Path | None,
        endpoint_hosts: Collection[str],
        proxies: ProxyRules,
        ledger: Ledger,
        utcnow: Callable[[], datetime],
    ) -> None:
        self.name = f"app registration {registration.name}"
        self._registration = registration
        self._ca_bundle = ca_bundle
        self._endpoint_hosts = endpoint_hosts
        self._proxies = proxies
        self._ledger = ledger
        self._utcnow = utcnow

    def examine(self) -> Iterator[Finding]:
        for number, credential in enumerate(self._registration.credentials):
            setting = _setting(self._registration.name, credential, is_next=number > 0)
            subject = self.name if number == 0 else f"{self.name}, next credential"
            try:
                outcome = self._ask(credential)
            except ConfigurationError as error:  # the same for each credential
                yield failed(self.name, str(error), "")
                return
            yield (
                _judged(subject, setting, outcome)
                or self._expiry(subject, setting, credential)
                or self._breaker(subject)
                or ok(subject)
            )

    def _ask(self, credential: ClientCredential) -> Outcome:
        """Raises ConfigurationError if the registration's metadata cannot be used."""
        alone = replace(self._registration, credentials=(credential,))
        identity = Identity(
            [alone],
            ca_bundle=self._ca_bundle,
            connections=1,
            endpoint_hosts=self._endpoint_hosts,
            proxies=self._proxies,
        )
        request = TokenRequest(refresh_token=_NO_TOKEN, client=alone.name, authority=None, scopes=())
        try:
            identity.check(alone.name)
            [[attempt]] = identity.refresh_all(iter([(None, request)]), now=self._utcnow)
        finally:
            identity.close()
        return attempt.outcome

    def _breaker(self, subject: str) -> Finding | None:
        """Whether refreshes meet errors although this request did not. Nothing while Postgres is unavailable."""
        with suppress(WorkerError):
            for breaker in self._ledger.breakers():
                if breaker.client == self._registration.name and breaker.open_until is not None:
                    problem = f"refreshes meet {breaker.kind} ({breaker.code}), so its breaker is open"
                    return failed(subject, problem, hint(breaker.code or ""))
        return None

    def _expiry(self, subject: str, setting: str, credential: ClientCredential) -> Finding | None:
        """Of a certificate. The end of a secret is known to Microsoft alone."""
        ends_at = credential.expires_at()
        if ends_at is None or ends_at - self._utcnow() > _EXPIRES_SOON:
            return None
        remedy = "Upload a new one at Microsoft, then set it"
        if ends_at <= self._utcnow():
            return failed(subject, f"the certificate of {setting} has ended on {ends_at:%Y-%m-%d}", remedy)
        return warning(subject, f"the certificate of {setting} ends on {ends_at:%Y-%m-%d}", remedy)


def _judged(subject: str, setting: str, outcome: Outcome) -> Finding | None:
    """A finding if the answer is not about the grant alone."""
    match outcome:
        case Misconfigured():
            refused = setting if outcome.code in CREDENTIAL_CODES else "the app registration"
            return failed(subject, f"Microsoft refuses {refused} ({outcome.code})", hint(outcome.code))
        case Transient():
            return failed(subject, f"Microsoft does not answer as it should ({outcome.code})", hint(outcome.code))
        case Throttled():
            return warning(subject, f"Microsoft throttles it ({outcome.code})", hint(outcome.code))
        case _:
            return None


def _setting(name: str, credential: ClientCredential, *, is_next: bool) -> str:
    prefix = "WORKER_" if name == DEFAULT_CLIENT else f"WORKER_CLIENTS__{name.upper()}__"
    kind = "SECRET" if credential.secret else "CERTIFICATE" if credential.certificate else "ASSERTION_FILE"
    return f"{prefix}{'NEXT_' if is_next else ''}CLIENT_{kind}"
