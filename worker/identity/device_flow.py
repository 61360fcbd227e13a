"""A sign-in on another device (RFC 8628), polled through MSAL."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msal

from worker.domain.codes import hint
from worker.domain.errors import ConfigurationError, InvalidInput, Unavailable
from worker.domain.http import HttpResponse
from worker.domain.microsoft import classify
from worker.domain.outcome import Refreshed
from worker.domain.token import Secret
from worker.identity.curl import TransferError
from worker.identity.msal_transport import MsalResponse

# MSAL receives this instead of a response that is missing or unusable, and therefore goes on polling.
_NO_RESPONSE = "no_response"
_PENDING = MsalResponse(
    HTTPStatus.BAD_REQUEST, json.dumps({"error": "authorization_pending", "suberror": _NO_RESPONSE}), {}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """The result of a finished sign-in; ``username`` is the user's, if Microsoft has named it."""

    tokens: Refreshed
    refresh_token: Secret
    username: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFlow:
    """A sign-in under way: show ``message``, then wait."""

    message: str
    _app: msal.ClientApplication
    _flow: dict[str, Any] = field(repr=False)

    @classmethod
    def start(cls, app: msal.ClientApplication, scopes: tuple[str, ...]) -> "DeviceFlow":
        """Raises ConfigurationError if the platform refuses, TransferError or ValueError if it does not respond."""
        flow = app.initiate_device_flow(scopes=list(scopes))
        if "user_code" not in flow:
            msg = f"the device code flow cannot be started: {flow.get('error', 'no user code in the answer')}"
            raise ConfigurationError(msg)
        return cls(message=str(flow["message"]), _app=app, _flow=flow)

    def wait(self, now: Callable[[], datetime]) -> SignedIn:
        """Poll until the user has signed in.

        Raises InvalidInput if the user has declined or taken too long, and Unavailable if the platform did not respond
        when the code expired.
        """
        started = now()
        result = self._app.acquire_token_by_device_flow(self._flow, post=self._poll)
        if result.get("suberror") == _NO_RESPONSE:
            raise Unavailable("the sign-in did not finish: the identity platform does not answer")
        if "access_token" not in result:
            refusal = HttpResponse(HTTPStatus.BAD_REQUEST, {}, json.dumps(result).encode())
            code = classify(refusal, obtained_at=started).code
            msg = f"the sign-in did not finish ({code}). {hint(code)}"
            raise InvalidInput(msg)
        tokens = classify(HttpResponse(HTTPStatus.OK, {}, json.dumps(result).encode()), obtained_at=started)
        if not isinstance(tokens, Refreshed) or tokens.refresh_token is None:
            raise InvalidInput("the sign-in gave no refresh token; is offline_access allowed for this app?")
        username = (result.get("id_token_claims") or {}).get("preferred_username")
        return SignedIn(tokens=tokens, refresh_token=tokens.refresh_token, username=username)

    def _poll(self, url: str, **request: Any) -> MsalResponse:
        """MSAL's ``post``. A response that is missing or unusable says nothing about the user."""
        try:
            response: MsalResponse = self._app.http_client.post(url, **request)
        except TransferError:
            return _PENDING
        return response if _is_usable(response) else _PENDING


def _is_usable(response: MsalResponse) -> bool:
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    return HttpResponse(response.status_code, {}, response.text.encode()).json_object() is not None
