"""An emulator that remembers every token: when it was given, when it was spent, and what never arrived.

Nothing here is seen through the product's eyes, so it can contradict the product.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from worker.clock import utcnow
from worker.devkit.emulator import Answer, Asked, Emulator, Fault, Hang, OAuthError, RawAnswer

# The worker's patience with a silent answer is 15 s: what comes later has been given to nobody.
_GIVEN_UP = 14.0
# A failed question is repeated after 5 s at the earliest; the machine may be slow, but not early.
_TOO_SOON = 4.5


@dataclass(slots=True)
class _Spending:
    """One refresh token in use."""

    email: str
    asked_at: float | None = None
    in_flight: int = 0
    granted: bool = False
    lost: bool = False  # its successor reached nobody, so whoever holds it has to present it again
    refused_credential: bool = False  # then the worker asks at once with its other one


@dataclass(frozen=True, slots=True)
class Life:
    """How long an access token is good, on a clock that nobody steps."""

    issued_at: float
    seconds: float

    def left(self) -> float:
        return self.issued_at + self.seconds - time.monotonic()


@dataclass(frozen=True, slots=True)
class Given:
    """A refresh token that was given in an answer."""

    email: str
    token: str = field(repr=False)
    at: datetime


class Witness(Emulator):
    """Its clock can be stepped; what it notes about tokens goes by clocks that cannot."""

    def __init__(self, *, lifetime: tuple[timedelta, timedelta]) -> None:
        super().__init__(clock=self._now, access_token_lifetime=lifetime)
        self._ahead = timedelta(0)
        self._noting = Lock()
        self._spendings: dict[str, _Spending] = {}
        self._granted_last: dict[str, _Spending] = {}
        self._lives: dict[str, Life] = {}
        self._given: list[Given] = []
        self._objections: list[str] = []
        self._in_flight = 0
        self._asked_last = 0.0
        self.asked = self.injected = 0

    def step(self, ahead: timedelta) -> None:
        """Set the clock of this Microsoft off against everybody else's."""
        self._ahead = ahead

    def admit(self, asked: Asked) -> Fault | None:
        fault = super().admit(asked)
        with self._noting:
            self.asked += 1
            self.injected += fault is not None
            self._note_asked(asked.form.get("refresh_token", ""))
        return fault

    def answer(self, asked: Asked, fault: Fault | None = None) -> Answer:
        answer = super().answer(asked, fault)
        with self._noting:
            self._note_answered(asked.form.get("refresh_token", ""), answer, fault)
        return answer

    def idle(self, *, seconds: float = 0.0) -> bool:
        """Whether every question has been decided, and no other was asked for so long."""
        with self._noting:
            return not self._in_flight and time.monotonic() - self._asked_last >= seconds

    def life_of(self, access_token: str) -> Life | None:
        """None for a token that was never given."""
        with self._noting:
            return self._lives.get(_digest(access_token))

    def given(self) -> list[Given]:
        with self._noting:
            return list(self._given)

    def write_off(self, email: str, *, since: datetime) -> None:
        """What was answered last about this account died with the process that had asked, if it is not too long ago."""
        with self._noting:
            answered = [given for given in self._given if given.email == email and given.at >= since]
            if not answered:
                self._objections.append(f"{email}: an answer was lost that had come long before the kill")
            self._granted_last[email].lost = True

    def take_objections(self) -> list[str]:
        """What was asked against the rules since the last call."""
        with self._noting:
            taken, self._objections = self._objections, []
        return taken

    def _now(self) -> datetime:
        return utcnow() + self._ahead

    def _note_asked(self, token: str) -> None:
        now, email = time.monotonic(), self._accounts.owner(token) or "nobody"
        spending = self._spendings.setdefault(_digest(token), _Spending(email))
        too_soon = spending.asked_at is not None and now - spending.asked_at < _TOO_SOON
        if spending.granted and not spending.lost:
            self._objections.append(f"{email}: a refresh token that had been spent was presented again")
        elif spending.in_flight or (too_soon and not (spending.lost or spending.refused_credential)):
            self._objections.append(f"{email}: asked about twice in one cycle")
        spending.lost = False
        spending.asked_at = self._asked_last = now
        spending.in_flight += 1
        self._in_flight += 1

    def _note_answered(self, token: str, answer: Answer, fault: Fault | None) -> None:
        spending = self._spendings[_digest(token)]
        spending.in_flight -= 1
        self._in_flight -= 1
        document = {} if isinstance(fault, RawAnswer) else _document(answer)
        spending.refused_credential = document.get("error") == "invalid_client" and not isinstance(fault, OAuthError)
        if "refresh_token" in document:
            spending.granted = True
            self._granted_last[spending.email] = spending
            spending.lost = answer.reset or (isinstance(fault, Hang) and fault.seconds > _GIVEN_UP)
            self._lives[_digest(document["access_token"])] = Life(time.monotonic(), document["expires_in"])
            self._given.append(Given(spending.email, document["refresh_token"], utcnow()))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _document(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
