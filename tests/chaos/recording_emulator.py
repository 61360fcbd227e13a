"""An emulator that records of every token when it was issued and used, and whether it may have been lost.

It uses none of the product's records, so it can contradict the product.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from worker.clock import utcnow
from worker.devkit.emulator import Emulator, EmulatorRequest, EmulatorResponse, Fault, Hang, OAuthError, RawAnswer

# The worker waits 15 s for a response. A later response is lost.
_RESPONSE_LIMIT = 14.0  # seconds
# The worker repeats a failed request after 5 s at the earliest.
_RETRY_DELAY = 4.5  # seconds


@dataclass(slots=True)
class _Use:
    """The use of one refresh token."""

    email: str
    requested_at: float | None = None
    in_flight: int = 0
    granted: bool = False
    lost: bool = False  # no process has got its successor, so the worker has to use it again
    refused_credential: bool = False  # then the worker repeats the request at once with its other credential


@dataclass(frozen=True, slots=True)
class Life:
    """The validity of an access token, on a clock that no test steps."""

    issued_at: float
    seconds: float

    def left(self) -> float:
        return self.issued_at + self.seconds - time.monotonic()


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A refresh token of a response."""

    email: str
    token: str = field(repr=False)
    at: datetime


class RecordingEmulator(Emulator):
    """An emulator whose clock can be stepped. Its records go by clocks that cannot."""

    def __init__(self, *, lifetime: tuple[timedelta, timedelta]) -> None:
        super().__init__(clock=self._now, access_token_lifetime=lifetime)
        self._ahead = timedelta(0)
        self._recording = Lock()
        self._uses: dict[str, _Use] = {}
        self._granted_last: dict[str, _Use] = {}
        self._lives: dict[str, Life] = {}
        self._issued: list[IssuedToken] = []
        self._violations: list[str] = []
        self._in_flight = 0
        self._last_request = 0.0
        self.requests = self.injected = 0

    def step(self, ahead: timedelta) -> None:
        """Set the clock of the emulator ahead of the real time."""
        self._ahead = ahead

    def admit(self, request: EmulatorRequest) -> Fault | None:
        fault = super().admit(request)
        with self._recording:
            self.requests += 1
            self.injected += fault is not None
            self._record_request(request.form.get("refresh_token", ""))
        return fault

    def respond(self, request: EmulatorRequest, fault: Fault | None = None) -> EmulatorResponse:
        response = super().respond(request, fault)
        with self._recording:
            self._record_response(request.form.get("refresh_token", ""), response, fault)
        return response

    def idle(self, *, seconds: float = 0.0) -> bool:
        """Whether every request has a response, and there was no other for so many seconds."""
        with self._recording:
            return not self._in_flight and time.monotonic() - self._last_request >= seconds

    def life_of(self, access_token: str) -> Life | None:
        """The validity of an access token. None if it was never issued."""
        with self._recording:
            return self._lives.get(_digest(access_token))

    def issued(self) -> list[IssuedToken]:
        with self._recording:
            return list(self._issued)

    def record_lost(self, email: str, *, since: datetime) -> None:
        """Record that the last response of an account was lost with a killed process. An older one is a violation."""
        with self._recording:
            if not any(issued.email == email and issued.at >= since for issued in self._issued):
                self._violations.append(f"{email}: a response was lost that had come long before the kill")
            self._granted_last[email].lost = True

    def take_violations(self) -> list[str]:
        """The requests since the last call that break the rules, in words."""
        with self._recording:
            taken, self._violations = self._violations, []
        return taken

    def _now(self) -> datetime:
        return utcnow() + self._ahead

    def _record_request(self, token: str) -> None:
        now, email = time.monotonic(), self._accounts.owner(token) or "an unknown account"
        use = self._uses.setdefault(_digest(token), _Use(email))
        too_soon = use.requested_at is not None and now - use.requested_at < _RETRY_DELAY
        if use.granted and not use.lost:
            self._violations.append(f"{email}: a refresh token was used twice")
        elif use.in_flight or (too_soon and not (use.lost or use.refused_credential)):
            self._violations.append(f"{email}: refreshed twice in one cycle")
        use.lost = False
        use.requested_at = self._last_request = now
        use.in_flight += 1
        self._in_flight += 1

    def _record_response(self, token: str, response: EmulatorResponse, fault: Fault | None) -> None:
        use = self._uses[_digest(token)]
        use.in_flight -= 1
        self._in_flight -= 1
        document = {} if isinstance(fault, RawAnswer) else _document(response)
        use.refused_credential = document.get("error") == "invalid_client" and not isinstance(fault, OAuthError)
        if "refresh_token" in document:
            use.granted = True
            self._granted_last[use.email] = use
            use.lost = response.reset or (isinstance(fault, Hang) and fault.seconds > _RESPONSE_LIMIT)
            self._lives[_digest(document["access_token"])] = Life(time.monotonic(), document["expires_in"])
            self._issued.append(IssuedToken(use.email, document["refresh_token"], utcnow()))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _document(response: EmulatorResponse) -> dict[str, Any]:
    try:
        document = json.loads(response.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
