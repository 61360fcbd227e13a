"""Reads an answer of Microsoft's token endpoint. The meaning of a code is data (codes.csv); the reading order is HTTP
status, code, ``suberror``, ``error``.

An unknown code or name concerns the requested account alone: three such answers over ten minutes mean that its user
must sign in again, and no breaker opens. Sources: learn.microsoft.com "Refresh tokens in the Microsoft identity
platform", "Increase the resilience of authentication in client applications" (429 and 5xx), MSAL.NET "Client and server
throttling" (AADSTS50196 arrives as ``invalid_grant``).
"""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, assert_never

from worker.domain.codes import BY_ERROR, BY_NUMBER, CodeRow, Verdict, flagged
from worker.domain.http import HttpResponse
from worker.domain.outcome import (
    Blocked,
    Misconfigured,
    Outcome,
    ReauthRequired,
    Refreshed,
    Scope,
    Throttled,
    Transient,
)
from worker.domain.token import LONGEST_LIFETIME, Secret, is_visible

__all__ = [
    "ABANDONED",
    "AGED_OUT",
    "BY_SUBERROR",
    "CREDENTIAL_CODES",
    "Verdict",
    "classify",
]

_CLIENT_ERROR = range(400, 500)
_NUMBER = re.compile(r"[0-9]{1,12}")
_IN_DESCRIPTION = re.compile(r"\bAADSTS([0-9]{1,12})\b", re.ASCII | re.IGNORECASE)
_CORRELATION_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # it is printed to terminals
_STORABLE = re.compile(r"[^\x00\ud800-\udfff]+")
_LONGEST_CHALLENGE = 16_384  # characters; Microsoft's have hundreds
_LONGEST_NAME = 64  # characters; longer than any registered error name

# RFC 6749 5.1 makes expires_in optional. A short guess costs an early refresh; a long one would serve a dead token.
_LIFETIME_IF_UNSTATED = timedelta(minutes=5)
_LONG_WAIT = timedelta(minutes=30)  # the lock-out and the loop detector count in tens of minutes, not seconds

#: The client secret, certificate or assertion is refused: not the app, and not the account.
CREDENTIAL_CODES = flagged("credential")

#: The tenant is gone, or its administrator has removed or disabled the app or its rights.
ABANDONED = flagged("abandoned")

#: A grant that ended at a fixed age: sign-in frequency set by policy, or a redirect URI registered as SPA (24 h).
AGED_OUT = flagged("aged out")

#: MSAL.NET's classification of ``suberror``: most want the user, two offer the user nothing to do.
BY_SUBERROR: Mapping[str, Verdict] = MappingProxyType(
    {
        "basic_action": Verdict.REAUTH,
        "additional_action": Verdict.REAUTH,
        "consent_required": Verdict.REAUTH,
        "user_password_expired": Verdict.REAUTH,
        "bad_token": Verdict.REAUTH,
        "token_expired": Verdict.REAUTH,
        "client_mismatch": Verdict.REAUTH,
        "device_authentication_failed": Verdict.REAUTH,
        "message_only": Verdict.BLOCKED,
        "protection_policy_required": Verdict.BLOCKED,
    }
)


@dataclass(frozen=True, slots=True)
class _Meaning:
    code: str
    verdict: Verdict
    scope: Scope = Scope.ACCOUNT


def classify(response: HttpResponse, *, obtained_at: datetime, own: Container[Verdict] = ()) -> Outcome:
    """The one place where an answer gets its meaning. ``obtained_at`` is the instant before the request.

    ``own``: verdicts that concern the account alone, since it and not the app registration has chosen what is refused.
    """
    body, trace = response.json_object() or {}, _correlation_id(response.correlation_id)
    if response.status == HTTPStatus.OK:
        return _refreshed(body, obtained_at, trace)
    meaning = _meaning(response.status, body)
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        of_tenant = meaning.verdict is Verdict.THROTTLED and meaning.scope is Scope.TENANT
        scope = Scope.TENANT if of_tenant else Scope.CLIENT
        return Throttled(code=meaning.code, retry_after=response.retry_after, scope=scope, correlation_id=trace)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Transient(code=meaning.code, retry_after=response.retry_after, scope=Scope.SERVICE, correlation_id=trace)
    return _refused(meaning, body, own, retry_after=response.retry_after, trace=trace)


def _refreshed(body: Mapping[str, Any], obtained_at: datetime, trace: str | None) -> Outcome:
    access_token, refresh_token = _token(body.get("access_token")), _token(body.get("refresh_token"))
    if access_token is None:
        return Transient(code="malformed_answer", scope=Scope.SERVICE, correlation_id=trace)
    refresh_in = _seconds(body.get("refresh_in"))
    return Refreshed(
        access_token=access_token,
        refresh_token=refresh_token,
        obtained_at=obtained_at,
        expires_at=obtained_at + (_seconds(body.get("expires_in")) or _LIFETIME_IF_UNSTATED),
        refresh_on=obtained_at + refresh_in if refresh_in else None,
        correlation_id=trace,
    )


def _refused(
    meaning: _Meaning,
    body: Mapping[str, Any],
    own: Container[Verdict],
    *,
    retry_after: timedelta | None,
    trace: str | None,
) -> Outcome:
    code, verdict, scope, wait = meaning.code, meaning.verdict, meaning.scope, retry_after
    match verdict:
        case Verdict.REAUTH | Verdict.UNPROVEN:
            claims = _claims(body.get("claims"))
            return ReauthRequired(code=code, certain=verdict is Verdict.REAUTH, claims=claims, correlation_id=trace)
        case Verdict.BLOCKED:
            return Blocked(code=code, correlation_id=trace)
        case Verdict.MISCONFIGURED | Verdict.PUBLIC_CLIENT | Verdict.SCOPES_REFUSED | Verdict.AUTHORITY_REFUSED:
            scope = Scope.ACCOUNT if verdict in own else scope
            scope = Scope.TENANT if scope is Scope.RESOURCE else scope
            return Misconfigured(code=code, scope=scope, correlation_id=trace)
        case Verdict.THROTTLED:
            wait = wait or (_LONG_WAIT if scope is Scope.ACCOUNT else None)
            return Throttled(code=code, retry_after=wait, scope=scope, correlation_id=trace)
        case Verdict.TRANSIENT | Verdict.TRANSIENT_LONG:
            wait = wait or (_LONG_WAIT if verdict is Verdict.TRANSIENT_LONG else None)
            return Transient(code=code, retry_after=wait, scope=scope, correlation_id=trace)
        case unreachable:
            assert_never(unreachable)


def _meaning(status: int, body: Mapping[str, Any]) -> _Meaning:
    numbers, error = _numbers(body), _error_name(body)
    listed = [BY_NUMBER[number] for number in numbers if number in BY_NUMBER]
    if listed:
        return _of(next((row for row in listed if "general" not in row.flags), listed[0]), error)
    by_suberror = BY_SUBERROR.get(_text(body.get("suberror")))
    code = numbers[0] if numbers else error or f"http_{status}"
    if by_suberror:
        return _Meaning(code, by_suberror)
    if not numbers and error in BY_ERROR:
        return _of(BY_ERROR[error], error)
    if numbers or error:
        return _unlisted(code, BY_ERROR.get(error))
    # A proxy may have answered, or a gateway refused a token of this account: the other accounts do not wait for it.
    return _Meaning(code, Verdict.TRANSIENT, Scope.ACCOUNT if status in _CLIENT_ERROR else Scope.SERVICE)


def _of(row: CodeRow, error: str) -> _Meaning:
    """The row's meaning; but an ``invalid_grant`` is about a grant, although its code may speak of the app."""
    if row.scope is Scope.CLIENT and error == "invalid_grant":
        return _Meaning(row.code, Verdict.UNPROVEN)
    return _Meaning(row.code, row.verdict, row.scope)


def _unlisted(code: str, by_error: CodeRow | None) -> _Meaning:
    """The error name decides, except that nothing unlisted is held against the app registration or the platform."""
    if by_error is None or by_error.scope is Scope.CLIENT:
        return _Meaning(code, Verdict.UNPROVEN)
    return _Meaning(code, by_error.verdict)


def _numbers(body: Mapping[str, Any]) -> list[str]:
    """AADSTS numbers of the answer, as codes. The description is read only where their list is missing."""
    codes = body.get("error_codes")
    listed = [code for code in map(str, codes) if _NUMBER.fullmatch(code)] if isinstance(codes, list) else []
    found = listed or _IN_DESCRIPTION.findall(_text(body.get("error_description")))
    return [f"AADSTS{int(number)}" for number in found]


def _error_name(body: Mapping[str, Any]) -> str:
    """The name of the error if it is fit for a log, else nothing."""
    name = _text(body.get("error"))
    return name if name.isascii() and name.isprintable() and len(name) <= _LONGEST_NAME else ""


def _correlation_id(value: str | None) -> str | None:
    return value if value and _CORRELATION_ID.fullmatch(value) else None


def _token(value: object) -> Secret | None:
    """A token as RFC 6749 appendix A allows it, visible ASCII; what cannot stand in a header is none."""
    text = _text(value)
    return Secret(text) if text.strip() and is_visible(text) else None


def _claims(value: object) -> str | None:
    """The challenge, if it can be stored: Postgres takes no NUL, UTF-8 no lone surrogate, and a cache entry no page."""
    text = _text(value)
    return text if len(text) <= _LONGEST_CHALLENGE and _STORABLE.fullmatch(text) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _seconds(value: object) -> timedelta | None:
    """A positive number of seconds, capped; None for anything else. Some servers send it as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = value if isinstance(value, int) else float(value)
    except ValueError:
        return None
    if not seconds > 0:  # also NaN
        return None
    return timedelta(seconds=min(seconds, LONGEST_LIFETIME.total_seconds()))
