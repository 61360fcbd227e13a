"""Reads an answer of Microsoft's token endpoint. The error table is data; the reading order is HTTP status, code,
``suberror``, ``error``, and whatever is unknown is treated conservatively.

Sources: learn.microsoft.com "Microsoft Entra authentication and authorization error codes", "Refresh tokens in the
Microsoft identity platform", "Increase the resilience of authentication in client applications" (429 and 5xx),
MSAL.NET "Client and server throttling" (AADSTS50196 arrives as ``invalid_grant``).
"""

import enum
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, assert_never

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
from worker.domain.secret import Secret, is_visible

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_OK = 200
_NUMBER = re.compile(r"[0-9]{1,12}")
_STORABLE = re.compile(r"[^\x00\ud800-\udfff]+")

# RFC 6749 5.1 makes expires_in optional. A short guess costs an early refresh; a long one would serve a dead token.
_LIFETIME_IF_UNSTATED = timedelta(minutes=5)
_LONGEST_LIFETIME = 48 * 3600  # seconds; continuous access evaluation reaches 28 h; more is a garbled answer


@dataclass(slots=True, kw_only=True)
class Answer:
    """One HTTP answer of the token endpoint. ``body`` is None unless it was a JSON object."""

    status: int
    body: Mapping[str, Any] | None
    retry_after: timedelta | None = None
    correlation_id: str | None = None

    def __repr__(self) -> str:
        return f"Answer(status={self.status})"  # the body may hold tokens


class Verdict(enum.Enum):
    """What a code or error name says, before the answer's details are added."""

    REAUTH = enum.auto()
    UNPROVEN = enum.auto()  #: looks like a dead grant; three of them make it one
    BLOCKED = enum.auto()
    MISCONFIGURED = enum.auto()
    TENANT_MISCONFIGURED = enum.auto()
    SCOPES_REFUSED = enum.auto()  #: misconfigured is whoever chose them: the app registration, or the account
    AUTHORITY_REFUSED = enum.auto()  #: likewise
    THROTTLED = enum.auto()
    TENANT_THROTTLED = enum.auto()
    TRANSIENT = enum.auto()
    TRANSIENT_LONG = enum.auto()


_LONG_WAIT = timedelta(minutes=30)  # the lock-out and the loop detector count in tens of minutes, not seconds


def _table(rows: Iterable[tuple[Verdict, tuple[int, ...]]]) -> Mapping[int, Verdict]:
    return MappingProxyType({code: verdict for verdict, codes in rows for code in codes})


#: AADSTS numbers. Microsoft warns that they may change; what is not here is read by `suberror` and `error` alone.
BY_CODE: Mapping[int, Verdict] = _table(
    [
        # revoked, expired by inactivity, expired, SPA's fixed 24 h, sign-in frequency, invalid grant
        (Verdict.REAUTH, (50173, 700082, 70008, 700084, 70043, 70000)),
        # multi-factor authentication needed, to be enrolled, expired
        (Verdict.REAUTH, (50076, 50079, 50074, 50072, 50078)),
        # password expired or changed, session revoked, flow token expired, social identity provider
        (Verdict.REAUTH, (50055, 50144, 50132, 50133, 50135, 50089, 50085)),
        # conditional access wants a device, a proof or a lower risk from the user
        (Verdict.REAUTH, (50158, 50097, 50129, 50131, 53000, 53001, 53002, 53004, 53010, 53011, 700003)),
        # consent missing or declined
        (Verdict.REAUTH, (65001, 65004)),
        # blocked by conditional access or policy; consent only an administrator can give; not assigned to the app
        (Verdict.BLOCKED, (53003, 530032, 530035, 90094, 90095, 50105)),
        # user disabled, not in the directory: the administrator may enable or restore them
        (Verdict.BLOCKED, (50057, 50034, 51004, 50020, 50014, 16000, 16003)),
        # client secret wrong, missing or expired
        (Verdict.MISCONFIGURED, (7000215, 70002, 7000222, 7000218)),
        # this grant was given to the app as a public client, which must not show a credential
        (Verdict.TENANT_MISCONFIGURED, (700025,)),
        # certificate or assertion invalid
        (Verdict.MISCONFIGURED, (700027, 700030, 50012, 50013, 50048, 900384)),
        # app not found or disabled in this tenant: an administrator can have removed it, and the others go on
        (Verdict.TENANT_MISCONFIGURED, (700016, 700011, 7000112, 7000229, 1000031)),
        (Verdict.MISCONFIGURED, (70001,)),
        # authority does not fit the app's audience
        (Verdict.AUTHORITY_REFUSED, (50194, 9002332, 9002331, 9001023, 90130, 90124)),
        # scope or resource wrong or unconsented
        (Verdict.SCOPES_REFUSED, (70011, 28002, 700022, 700023, 650057)),
        (Verdict.TENANT_MISCONFIGURED, (500011, 500014, 650052, 650056, 65005, 50001)),  # or only not in this tenant
        # malformed request; not 9002313, which with `invalid_grant` is about a malformed refresh token
        (Verdict.MISCONFIGURED, (90014, 900144)),
        (Verdict.TENANT_MISCONFIGURED, (90002,)),  # tenant not found
        (Verdict.THROTTLED, (50196,)),  # loop detected: an `invalid_grant` that says nothing about the grant
        (Verdict.TENANT_THROTTLED, (90055,)),
        (Verdict.TRANSIENT_LONG, (50053,)),  # locked out, or our address looks malicious
        # service-side
        (Verdict.TRANSIENT, (90033, 90006, 90012, 90024, 90090, 90091, 50033, 50087, 50088, 40010, 70012)),
        (Verdict.TRANSIENT, (80002, 80005, 80014, 50000)),
    ]
)

#: The client secret, certificate or assertion is refused: not the app, and not the account.
CREDENTIAL_CODES = frozenset(
    {"invalid_client", *(f"AADSTS{code}" for code in (7000215, 70002, 7000222, 700027, 700030, 50012, 50013, 50048))}
)

#: The tenant is gone, or its administrator has removed or disabled the app or its rights.
ABANDONED = frozenset(f"AADSTS{code}" for code in (90002, 700016, 700011, 7000112, 7000229, 1000031, 500014, 650052))

#: A grant that ended at a fixed age: sign-in frequency set by policy, or a redirect URI registered as SPA (24 h).
AGED_OUT = frozenset({"AADSTS70043", "AADSTS700084"})

#: MSAL.NET's classification of `suberror`: each of these wants the user.
BY_SUBERROR: Mapping[str, Verdict] = MappingProxyType(
    dict.fromkeys(
        (
            "basic_action",
            "additional_action",
            "message_only",
            "consent_required",
            "user_password_expired",
            "bad_token",
            "token_expired",
            "protection_policy_required",
            "client_mismatch",
            "device_authentication_failed",
        ),
        Verdict.REAUTH,
    )
)

#: OAuth 2.0 (RFC 6749 5.2) and OpenID Connect error names.
BY_ERROR: Mapping[str, Verdict] = MappingProxyType(
    {
        "invalid_grant": Verdict.UNPROVEN,
        "interaction_required": Verdict.REAUTH,
        "login_required": Verdict.REAUTH,
        "consent_required": Verdict.REAUTH,
        "invalid_client": Verdict.MISCONFIGURED,
        "unauthorized_client": Verdict.MISCONFIGURED,
        "unsupported_grant_type": Verdict.MISCONFIGURED,
        "invalid_request": Verdict.MISCONFIGURED,
        "invalid_scope": Verdict.SCOPES_REFUSED,
        "invalid_resource": Verdict.SCOPES_REFUSED,
        "temporarily_unavailable": Verdict.TRANSIENT,
        "server_error": Verdict.TRANSIENT,
    }
)


def classify(answer: Answer, *, obtained_at: datetime, own: Container[Verdict] = ()) -> Outcome:
    """The one place where an answer gets its meaning. ``obtained_at`` is the instant before the request.

    ``own``: what would be the account's own fault, since it and not the app registration has chosen that.
    """
    body = answer.body or {}
    if answer.status == _OK:
        return _refreshed(answer, body, obtained_at)
    if answer.status == _TOO_MANY_REQUESTS:
        return Throttled(
            code=_code(answer, body),
            retry_after=answer.retry_after,
            scope=Scope.TENANT if _verdict(body) is Verdict.TENANT_THROTTLED else Scope.CLIENT,
            correlation_id=answer.correlation_id,
        )
    if answer.status >= _SERVER_ERROR:
        return Transient(
            code=_code(answer, body),
            retry_after=answer.retry_after,
            scope=Scope.SERVICE,
            correlation_id=answer.correlation_id,
        )
    return _refused(answer, body, own)


def _refreshed(answer: Answer, body: Mapping[str, Any], obtained_at: datetime) -> Outcome:
    access_token, refresh_token = _token(body.get("access_token")), _token(body.get("refresh_token"))
    if access_token is None:
        return Transient(code="malformed_answer", scope=Scope.SERVICE, correlation_id=answer.correlation_id)
    refresh_in = _seconds(body.get("refresh_in"))
    return Refreshed(
        access_token=access_token,
        refresh_token=refresh_token,
        obtained_at=obtained_at,
        expires_at=obtained_at + (_seconds(body.get("expires_in")) or _LIFETIME_IF_UNSTATED),
        refresh_on=obtained_at + refresh_in if refresh_in else None,
        correlation_id=answer.correlation_id,
    )


def _refused(answer: Answer, body: Mapping[str, Any], own: Container[Verdict]) -> Outcome:  # noqa: C901, PLR0911 - a case per verdict
    code, trace = _code(answer, body), answer.correlation_id
    verdict = _verdict(body)
    match verdict:
        case Verdict.REAUTH:
            return ReauthRequired(code=code, claims=_claims(body.get("claims")), correlation_id=trace)
        case Verdict.UNPROVEN:
            return ReauthRequired(code=code, certain=False, correlation_id=trace)
        case Verdict.BLOCKED:
            return Blocked(code=code, correlation_id=trace)
        case Verdict.MISCONFIGURED:
            return Misconfigured(code=code, correlation_id=trace)
        case Verdict.TENANT_MISCONFIGURED:
            return Misconfigured(code=code, scope=Scope.TENANT, correlation_id=trace)
        case Verdict.SCOPES_REFUSED | Verdict.AUTHORITY_REFUSED:
            scope = Scope.ACCOUNT if verdict in own else Scope.CLIENT
            return Misconfigured(code=code, scope=scope, correlation_id=trace)
        case Verdict.THROTTLED:
            return Throttled(code=code, retry_after=answer.retry_after or _LONG_WAIT, correlation_id=trace)
        case Verdict.TENANT_THROTTLED:
            return Throttled(code=code, retry_after=answer.retry_after, scope=Scope.TENANT, correlation_id=trace)
        case Verdict.TRANSIENT:
            return Transient(code=code, retry_after=answer.retry_after, scope=Scope.SERVICE, correlation_id=trace)
        case Verdict.TRANSIENT_LONG:
            return Transient(code=code, retry_after=answer.retry_after or _LONG_WAIT, correlation_id=trace)
        case unreachable:
            assert_never(unreachable)


def _verdict(body: Mapping[str, Any]) -> Verdict:
    known = [BY_CODE[code] for code in _numbers(body) if code in BY_CODE]
    if known:
        return known[0]
    by_suberror = BY_SUBERROR.get(_text(body.get("suberror")))
    return by_suberror or BY_ERROR.get(_text(body.get("error")), Verdict.TRANSIENT)


def _numbers(body: Mapping[str, Any]) -> list[int]:
    codes = body.get("error_codes")
    if not isinstance(codes, list):
        return []
    return [int(code) for code in map(str, codes) if _NUMBER.fullmatch(code)]


def _code(answer: Answer, body: Mapping[str, Any]) -> str:
    numbers = _numbers(body)
    if numbers:
        decisive = next((number for number in numbers if number in BY_CODE), numbers[0])
        return f"AADSTS{decisive}"
    error = _text(body.get("error"))
    return error if error.isascii() and error.isprintable() and 0 < len(error) <= 64 else f"http_{answer.status}"  # noqa: PLR2004 - longer than any registered name


def _token(value: object) -> Secret | None:
    """A token as RFC 6749 appendix A allows it, visible ASCII; what cannot stand in a header is none."""
    text = _text(value)
    return Secret(text) if text and is_visible(text) else None


def _claims(value: object) -> str | None:
    """The challenge, if it can be stored: Postgres takes no NUL, and UTF-8 no lone surrogate."""
    text = _text(value)
    return text if _STORABLE.fullmatch(text) else None


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
    return timedelta(seconds=min(seconds, _LONGEST_LIFETIME))
