"""MSAL in, Outcome out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msal

from worker.domain.errors import ConfigurationError, InvalidInput, Unavailable
from worker.domain.microsoft import CREDENTIAL_CODES, Answer, Verdict, classify
from worker.domain.outcome import Misconfigured, Outcome, Refreshed, Scope, Transient
from worker.domain.secret import Secret
from worker.identity.apps import PUBLIC, AppKey, Apps, Discovery
from worker.identity.http import NO_ANSWER, Letter, TokenEndpoint, dictated, patient, read
from worker.identity.registration import Registration, check_scopes
from worker.identity.talks import Answered, Talk, Talks, Window
from worker.identity.wire import Wire, WireError

Key = TypeVar("Key")

_OK = 200
_IS_PUBLIC = "AADSTS700025"
_LETTER_LASTS = timedelta(seconds=10)


@dataclass(slots=True, kw_only=True)
class Question:
    """A refresh token to be spent, and where."""

    refresh_token: Secret
    client: str
    authority: str | None  # None: the registration's own
    scopes: Sequence[str]  # empty: the registration's own


@dataclass(frozen=True, slots=True)
class _Round:
    """What the questions of one call have in common, as it is found out."""

    now: Callable[[], datetime]
    failed: dict[AppKey, Discovery]
    letters: dict[tuple[AppKey, tuple[str, ...]], Letter] = field(default_factory=dict)


class Identity:
    """The token endpoint for all registrations of this process. Thread-safe; make it after a fork."""

    def __init__(
        self, registrations: Sequence[Registration], *, ca_bundle: Path | None = None, connections: int = 32
    ) -> None:
        self._registrations = {registration.name: registration for registration in registrations}
        self._wire = Wire(ca_bundle=ca_bundle, connections=connections)
        self._apps = Apps(TokenEndpoint(self._wire))
        self._window = Window(connections)
        self._orders = {each.name: tuple(range(len(each.credentials))) for each in registrations}

    def refresh(
        self,
        refresh_token: Secret,
        *,
        client: str,
        authority: str | None,
        scopes: Sequence[str],
        now: Callable[[], datetime],
    ) -> Outcome | Exception:
        """Spend one refresh token. Every answer, and every failure to get one, comes back as an Outcome.

        An exception is returned, not raised, and stands for what could not be asked at all.
        """
        question = Question(refresh_token=refresh_token, client=client, authority=authority, scopes=scopes)
        [[answered]] = self.refresh_all(iter([(None, question)]), now=now)
        return answered.outcome

    def refresh_all(
        self,
        questions: Iterator[tuple[Key, Question]],
        *,
        expected: Iterable[tuple[str, str | None]] = (),
        now: Callable[[], datetime],
    ) -> Iterator[list[Answered[Key]]]:
        """Spend refresh tokens, many at a time, in groups of whatever has been answered; each as ``refresh`` does.

        A question is taken when there is a connection for it, and no sooner. Exhaust the iterator: answers under way
        when it is dropped are lost. ``expected``: clients and authorities that will be asked, so that metadata that
        are missing can be fetched side by side.
        """
        round_ = _Round(now=now, failed=self._prepared(expected))
        talks = ((key, self._talk(question, round_)) for key, question in questions)
        return Talks[Key](self._wire).hold(talks, self._window)

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
            self._apps.get(registration, 0, registration.authority)
        except Discovery as error:
            msg = f"{registration.authority} does not answer OpenID discovery ({error.outcome.code})"
            raise ConfigurationError(msg) from None

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(self._registrations)

    def start_device_flow(self, client: str) -> "DeviceFlow":
        """Begin a sign-in on another device. Raises ConfigurationError if the platform refuses to start one."""
        registration = self._registrations[client]
        try:
            app = self._apps.get(registration, PUBLIC, registration.authority)
            flow = app.initiate_device_flow(scopes=list(registration.scopes))
        except (Discovery, WireError, ValueError) as error:
            msg = f"the device code flow cannot be started: {registration.authority} does not answer as it should"
            raise ConfigurationError(msg) from error
        if "user_code" not in flow:
            msg = f"the device code flow cannot be started: {flow.get('error', 'no user code in the answer')}"
            raise ConfigurationError(msg)
        return DeviceFlow(message=str(flow["message"]), _app=app, _flow=flow)

    def close(self) -> None:
        self._wire.close()

    def _prepared(self, expected: Iterable[tuple[str, str | None]]) -> dict[AppKey, Discovery]:
        registrations = [(self._registrations.get(client), authority) for client, authority in expected]
        return self._apps.prepare(
            [
                (registration, self._orders[registration.name][0], authority or registration.authority)
                for registration, authority in registrations
                if registration and registration.credentials
            ]
        )

    def _talk(self, question: Question, round_: _Round) -> Talk:
        registration = self._registrations.get(question.client)
        if registration is None:
            return Misconfigured(code="unknown_client", scope=Scope.TENANT)  # our own lack, and no fault of the app's
        outcome: Outcome = Misconfigured(code="no_credential")
        for number in self._orders[registration.name]:
            outcome = yield from self._attempt(registration, number, question, round_)
            if not _refuses_credential(outcome):
                break
            self._put_last(registration, number)
        if outcome.code == _IS_PUBLIC:
            return (yield from self._attempt(registration, PUBLIC, question, round_))
        return outcome

    def _attempt(self, registration: Registration, number: int, question: Question, round_: _Round) -> Talk:
        key = registration.name, number, question.authority or registration.authority
        if key in round_.failed:
            return round_.failed[key].outcome
        now = round_.now()
        try:
            letter = self._letter(registration, key, tuple(question.scopes or registration.scopes), round_, now=now)
        except InvalidInput:
            return Misconfigured(code="authority_refused", scope=Scope.TENANT)
        except Discovery as error:
            round_.failed[key] = error  # to ask for each in turn would take the time of all together
            return error.outcome
        try:
            reply = yield letter.about(question.refresh_token)
        except WireError as error:
            return Transient(code=error.code, scope=Scope.NETWORK)
        return classify(read(reply), obtained_at=now, own=_own_choices(question, registration))

    def _letter(
        self, registration: Registration, key: AppKey, scopes: tuple[str, ...], round_: _Round, *, now: datetime
    ) -> Letter:
        """Raises InvalidInput or Discovery."""
        letter = round_.letters.get((key, scopes))
        if letter is None or not timedelta(0) <= now - letter.written_at < _LETTER_LASTS:
            app = self._apps.get(registration, *key[1:])
            letter = dictated(lambda post: app.acquire_token_by_refresh_token("any", list(scopes), post=post), now=now)
            round_.letters[key, scopes] = letter
        return letter

    def _put_last(self, registration: Registration, number: int) -> None:
        """Whoever asks next begins with the credential after this one."""
        numbers = range(len(registration.credentials))
        self._orders[registration.name] = (*numbers[number + 1 :], *numbers[: number + 1])


def _own_choices(question: Question, registration: Registration) -> list[Verdict]:
    """What would be the account's own fault."""
    own = []
    if tuple(question.scopes) not in ((), registration.scopes):
        own.append(Verdict.SCOPES_REFUSED)
    if question.authority not in (None, registration.authority):
        own.append(Verdict.AUTHORITY_REFUSED)
    return own


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
        """Poll until the user has signed in. Raises InvalidInput if they declined or took too long, and Unavailable if
        the platform did not answer when the code expired."""
        started = now()
        result = self._app.acquire_token_by_device_flow(self._flow, post=patient(self._app.http_client.post))
        if result.get("suberror") == NO_ANSWER:
            raise Unavailable("the sign-in did not finish: the identity platform does not answer")
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
