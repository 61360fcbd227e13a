"""Injected faults of the token endpoint, with their accounts and the number of times that they occur."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from worker.devkit.emulator.oauth_errors import OAuthError, oauth_error


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """These bytes instead of a response. No grant is made."""

    body: bytes
    status: int = 200
    content_type: str = "application/json; charset=utf-8"
    retry_after: int | str | None = None


@dataclass(frozen=True, slots=True)
class Tampered:
    """A grant is made, but fields of its response are replaced or missing."""

    replaced: Mapping[str, object] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()

    def bend(self, document: Mapping[str, object]) -> dict[str, object]:
        return {key: value for key, value in {**document, **self.replaced}.items() if key not in self.missing}


@dataclass(frozen=True, slots=True)
class Hang:
    """The response waits. With `after`, the grant has been made before the wait."""

    seconds: float
    after: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset without a response. With `after`, the grant has been made and is lost."""

    after: bool = False


Fault = OAuthError | RawAnswer | Tampered | Hang | Reset

_HTML = b"<!DOCTYPE html><html><head><title>Our services aren't available right now</title></head></html>"
_WRONG_TYPES = {"token_type": 1, "expires_in": None, "access_token": {"value": "x"}, "refresh_token": True}
_ODD_ERROR = {"error": {"code": "ServiceUnavailable", "message": "The gateway could not reach the service."}}


def _html(status: int) -> RawAnswer:
    return RawAnswer(_HTML, status, "text/html; charset=utf-8")


_NAMED: Mapping[str, Callable[[], Fault]] = {
    "html-200": lambda: _html(200),
    "html-403": lambda: _html(403),
    "html-502": lambda: _html(502),
    "html-503": lambda: _html(503),
    "throttled": lambda: RawAnswer(b"Too Many Requests", 429, "text/plain", retry_after=60),
    "truncated-json": lambda: RawAnswer(b'{"token_type":"Bearer","scope":"https://outl'),
    "json-array": lambda: RawAnswer(b"[]"),
    "wrong-types": lambda: RawAnswer(json.dumps(_WRONG_TYPES).encode()),
    "odd-error": lambda: RawAnswer(json.dumps(_ODD_ERROR).encode(), 400),
    "garbage-id-token": lambda: Tampered({"id_token": "garbage"}),
    "garbage-client-info": lambda: Tampered({"client_info": "garbage"}),
    "no-client-info": lambda: Tampered(missing=frozenset({"client_info"})),
    "no-refresh-token": lambda: Tampered(missing=frozenset({"refresh_token"})),
    "reset": Reset,
    "reset-after": lambda: Reset(after=True),
}
FAULT_NAMES = frozenset(_NAMED)


def fault_named(name: str) -> Fault:
    """A fault by its name in FAULT_NAMES or its AADSTS code. Raises ValueError for anything else."""
    if name in _NAMED:
        return _NAMED[name]()
    if name.upper().removeprefix("AADSTS").isdecimal():
        return oauth_error(name)
    raise ValueError(f"no fault is named {name!r}; known are AADSTS codes and {', '.join(sorted(_NAMED))}")


@dataclass(slots=True)
class _Scripted:
    fault: Fault
    email: str | None
    remaining: int | None


class Script:
    """The faults still to come. Not thread-safe."""

    def __init__(self) -> None:
        self._scripted: list[_Scripted] = []

    def add(self, fault: Fault, email: str | None, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError("times must be at least 1, or None for until cleared")
        self._scripted.append(_Scripted(fault, email, times))

    def take(self, email: str | None) -> Fault | None:
        """The next fault for this account. Its own faults come before the global ones, each in the order of `add`."""
        candidates = [each for each in self._scripted if each.email is None or each.email == email]
        if not candidates:
            return None
        scripted = min(candidates, key=lambda each: each.email is None)
        if scripted.remaining is not None:
            scripted.remaining -= 1
            if scripted.remaining == 0:
                self._scripted.remove(scripted)
        return scripted.fault

    def clear(self, email: str | None) -> None:
        self._scripted = [each for each in self._scripted if email is not None and each.email != email]
