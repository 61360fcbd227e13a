"""OAuth errors in Microsoft's exact JSON shape, and a catalogue of the usual fields of each AADSTS code."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from worker.domain.codes import BY_NUMBER, CodeRow, Verdict
from worker.domain.outcome import Scope


@dataclass(frozen=True, slots=True)
class OAuthError:
    """One error. `retry_after` is seconds or an HTTP date, and is sent as given."""

    error: str
    code: str
    message: str
    status: int = 400
    suberror: str | None = None
    claims: str | None = None
    retry_after: int | str | None = None

    def body(self, *, now: datetime, base_url: str, correlation_id: str) -> bytes:
        trace_id, stamp = str(uuid.uuid4()), f"{now:%Y-%m-%d %H:%M:%SZ}"
        number = int(self.code.removeprefix("AADSTS"))
        document: dict[str, object] = {
            "error": self.error,
            "error_description": f"{self.code}: {self.message} Trace ID: {trace_id} "
            f"Correlation ID: {correlation_id} Timestamp: {stamp}",
            "error_codes": [number],
            "timestamp": stamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"{base_url}/error?code={number}",
        }
        optional = {"suberror": self.suberror, "claims": self.claims}
        return json.dumps(document | {key: value for key, value in optional.items() if value}).encode()


class Refused(Exception):
    """A request that the emulator's rules reject. `refusal` is the error to send."""

    def __init__(self, refusal: OAuthError) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


def oauth_error(
    code: str,
    *,
    error: str | None = None,
    message: str | None = None,
    status: int | None = None,
    suberror: str | None = None,
    claims: str | None = None,
    retry_after: int | str | None = None,
) -> OAuthError:
    """The usual error of `code` ("AADSTS50196" or "50196"). The other arguments replace the usual fields.

    A code outside the catalogue is sent as the worker's table of codes suggests. A code outside that table is sent as
    `invalid_grant`, because Microsoft introduces new codes like this.
    """
    number = code.upper().removeprefix("AADSTS")
    usual = CATALOGUE.get(number) or _suggested(BY_NUMBER.get(f"AADSTS{number}"))
    return OAuthError(
        error=error or usual.error,
        code=f"AADSTS{int(number)}",
        message=message or usual.message,
        status=status or usual.status,
        suberror=suberror or usual.suberror,
        claims=claims or usual.claims,
        retry_after=retry_after if retry_after is not None else usual.retry_after,
    )


def refused(code: str, **changes: str | int | None) -> Refused:
    return Refused(oauth_error(code, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Usual:
    error: str
    message: str
    status: int = 400
    suberror: str | None = None
    claims: str | None = None
    retry_after: int | None = None


def _suggested(row: CodeRow | None) -> _Usual:
    if row is None:
        return _Usual("invalid_grant", "The grant cannot be used.")
    message = row.name or row.hint
    if "credential" in row.flags:
        return _app(message)
    if row.verdict is Verdict.TRANSIENT:
        return _busy(message)
    if row.verdict is Verdict.MISCONFIGURED:
        return _Usual(_BY_SCOPE.get(row.scope, "invalid_request"), message)
    return _Usual(_BY_VERDICT.get(row.verdict, "invalid_grant"), message)


_BY_SCOPE = {Scope.TENANT: "unauthorized_client", Scope.RESOURCE: "invalid_resource"}
_BY_VERDICT = {
    Verdict.SCOPES_REFUSED: "invalid_scope",
    Verdict.AUTHORITY_REFUSED: "invalid_request",
    Verdict.PUBLIC_CLIENT: "invalid_request",
}


def _mfa(message: str) -> _Usual:
    claims = '{"access_token":{"capolids":{"essential":true,"values":["00000000-0000-0000-0000-00000000c0de"]}}}'
    return _Usual("invalid_grant", message, suberror="basic_action", claims=claims)


def _dead(message: str, suberror: str | None = None) -> _Usual:
    return _Usual("invalid_grant", message, suberror=suberror)


def _app(message: str) -> _Usual:
    return _Usual("invalid_client", message, status=401)


def _busy(message: str, status: int = 503) -> _Usual:
    return _Usual("temporarily_unavailable", message, status=status)


_SIGN_IN_AGAIN = {
    "50173": _dead("The grant has been revoked; a fresh sign-in is needed.", "bad_token"),
    "700082": _dead("The refresh token has expired due to inactivity.", "bad_token"),
    "70008": _dead("The authorization code or refresh token has expired or was revoked.", "bad_token"),
    "700084": _dead("The refresh token was issued to a single page app and its fixed lifetime is over."),
    "70043": _dead("The refresh token has expired or is invalid due to sign-in frequency checks.", "bad_token"),
    "70000": _dead("The provided grant is invalid or malformed.", "bad_token"),
    "9002313": _dead("The request is malformed or invalid."),  # the refresh token in it is
    "700003": _dead("The device object was not found in the tenant."),
    "50072": _mfa("The user must enrol in multi-factor authentication."),
    "50074": _mfa("Strong authentication is required."),
    "50076": _mfa("Multi-factor authentication is required to access the resource."),
    "50078": _mfa("The presented multi-factor authentication has expired."),
    "50079": _mfa("The user must enrol in multi-factor authentication because of a policy."),
    "50055": _dead("The password is expired.", "user_password_expired"),
    "50085": _dead("The refresh token needs a sign-in at the social identity provider."),
    "50089": _dead("The flow token has expired."),
    "50097": _dead("Device authentication is required.", "device_authentication_failed"),
    "50132": _dead("The session is not valid because the password has expired or changed."),
    "50133": _dead("The session is not valid because the password has expired or changed recently."),
    "50135": _dead("A password change is required because of account risk."),
    "50144": _dead("The user's password has expired."),
    "50158": _Usual("interaction_required", "An external security challenge was not satisfied."),
    "53000": _Usual("interaction_required", "The device is not compliant.", suberror="message_only"),
    "53001": _Usual("interaction_required", "The device is not domain joined.", suberror="message_only"),
    "65001": _dead("The user or administrator has not consented to use the application.", "consent_required"),
    "65004": _dead("The user declined to consent.", "consent_required"),
}
_BLOCKED = {
    "50014": _dead("The user is not found in the tenant's directory."),
    "50020": _dead("The account does not exist in the tenant."),
    "50034": _dead("The user account does not exist in the directory."),
    "50053": _dead("The account is locked, or the sign-in came from a malicious address."),
    "50057": _dead("The user account is disabled."),
    "50105": _dead("The user is not assigned to a role for the application."),
    "51004": _dead("The user account does not exist in the directory."),
    "53003": _dead("Access is blocked by conditional access policies.", "message_only"),
    "530032": _dead("Access is blocked by a security policy of the tenant.", "message_only"),
    "530035": _dead("Access is blocked by security defaults.", "message_only"),
    "90094": _dead("An administrator must consent.", "consent_required"),
    "90095": _dead("An administrator must consent; a request was sent.", "consent_required"),
}
_APPLICATION = {
    "28000": _Usual(
        "invalid_request",
        "Provided value for the input parameter scope is not valid because it contains more than one resource.",
    ),
    "50012": _app("Authentication of the client failed."),
    "50013": _app("The client assertion failed signature validation."),
    "50194": _Usual("invalid_request", "The application is not a multi-tenant application; /common is not for it."),
    "500011": _Usual("invalid_resource", "The resource principal was not found in the tenant."),
    "500014": _Usual("invalid_resource", "The service principal for the resource is disabled."),
    "650052": _Usual("invalid_client", "The organization has not subscribed to the service that the app needs."),
    "7000229": _Usual("unauthorized_client", "The client application is missing its service principal in the tenant."),
    "650057": _Usual("invalid_resource", "The client has not listed the requested resource."),
    "7000112": _Usual("unauthorized_client", "The application is disabled."),
    "70001": _Usual("unauthorized_client", "The application is not found in the tenant."),
    "70002": _app("The credentials of the client are not valid."),
    "70021": _app("No matching federated identity record found for presented assertion."),
    "700213": _app("No matching federated identity record found for presented assertion subject."),
    "7000215": _app("Invalid client secret provided."),
    "7000218": _app("The request body must contain 'client_assertion' or 'client_secret'."),
    "7000222": _app("The provided client secret keys are expired."),
    "700016": _Usual("unauthorized_client", "The application was not found in the directory."),
    "700024": _app("The client assertion is not within its valid time range."),
    "700025": _app("The client is public: neither 'client_assertion' nor 'client_secret' should be presented."),
    "700027": _app("The client assertion failed validation: no registered certificate made its signature."),
    "70003": _Usual("unsupported_grant_type", "The grant type is not supported."),
    "70011": _Usual("invalid_scope", "The provided scope is not valid."),
    "90002": _Usual("invalid_request", "The tenant was not found."),
    "90014": _Usual("invalid_request", "A required field is missing."),
    "900144": _Usual("invalid_request", "The request body lacks a required parameter."),
    "9002331": _Usual("invalid_request", "The application is for personal accounts only; use /consumers."),
    "9002332": _Usual("invalid_request", "The application is not for personal accounts; do not use /consumers."),
}
_LATER = {
    "50000": _Usual("server_error", "The sign-in service had an error.", status=500),
    "50196": _dead("The server ended the operation because it met a client request loop."),
    "90006": _busy("The service is temporarily unavailable."),
    "90012": _busy("The request has timed out.", status=504),
    "90033": _busy("A transient error has occurred. Please try again."),
    "90055": _Usual("temporarily_unavailable", "The tenant request is throttled.", status=429, retry_after=60),
}
_CODES = {
    "501481": _dead("The code_verifier does not match the code_challenge of the authorization request."),
    "54005": _dead("The authorization code was already redeemed."),
    "70016": _Usual("authorization_pending", "The device flow is pending: the user has not finished signing in."),
    "70018": _Usual("bad_verification_code", "The verification code is invalid."),
    "70020": _Usual("expired_token", "The device code has expired."),
}
CATALOGUE: Mapping[str, _Usual] = MappingProxyType(_SIGN_IN_AGAIN | _BLOCKED | _APPLICATION | _LATER | _CODES)
