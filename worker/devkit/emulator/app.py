"""The public routes of the identity platform: discovery, keys, tokens, and the pages that users see."""

import asyncio
import html
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from worker.devkit.emulator.admin import admin_routes
from worker.devkit.emulator.exchange import EmulatorRequest, EmulatorResponse
from worker.devkit.emulator.faults import Hang
from worker.devkit.emulator.introspection import basic_credentials
from worker.devkit.emulator.oauth_errors import Refused
from worker.devkit.emulator.signins import DEVICE_CODE_LIFETIME, AuthorizationCode
from worker.devkit.emulator.tokens import tenant_id

if TYPE_CHECKING:
    from worker.devkit.emulator.core import Emulator

_TOKEN = "/{tenant}/oauth2/v2.0/token"
_POLL_INTERVAL = 5  # seconds


def build_app(emulator: "Emulator") -> Starlette:
    pages = _Pages(emulator)
    configuration = "/.well-known/openid-configuration"
    return Starlette(
        routes=[
            Route(_TOKEN, pages.token, methods=["POST"]),
            Route("/{tenant}/v2.0" + configuration, pages.discovery),
            Route("/{tenant}" + configuration, pages.discovery),
            Route("/{tenant}/discovery/v2.0/keys", pages.keys),
            Route("/{tenant}/oauth2/v2.0/introspect", pages.introspect, methods=["POST"]),
            Route("/{tenant}/discovery/instance", pages.instance),
            Route("/{tenant}/oauth2/v2.0/authorize", pages.authorize),
            Route("/{tenant}/oauth2/v2.0/devicecode", pages.device_code, methods=["POST"]),
            Route("/devicelogin", pages.device_page, methods=["GET"]),
            Route("/devicelogin", pages.device_approval, methods=["POST"]),
            *admin_routes(emulator),
        ]
    )


class Severed(Response):
    """Resets the connection instead of a response, by the function that the server has put into the scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort: Callable[[], None] | None = scope.get("state", {}).get("abort")
        if abort is None:
            raise ConnectionResetError
        abort()
        while (await receive())["type"] != "http.disconnect":
            pass


@dataclass(frozen=True, slots=True)
class _Pages:
    emulator: "Emulator"

    async def token(self, request: Request) -> Response:
        parsed = await _parse(request)
        fault = self.emulator.admit(parsed)
        if isinstance(fault, Hang) and not fault.after and await _cut_off(request, fault):
            return Severed()
        response = self.emulator.respond(parsed, fault)
        if isinstance(fault, Hang) and fault.after and await _cut_off(request, fault):
            return Severed()
        return _response(response, request)

    async def discovery(self, request: Request) -> Response:
        base, tenant = _base(request), request.path_params["tenant"]
        root = f"{base}/{tenant}"
        return JSONResponse(
            {
                "token_endpoint": f"{root}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                "jwks_uri": f"{root}/discovery/v2.0/keys",
                "response_modes_supported": ["query"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "issuer": f"{base}/{tenant_id(tenant)}/v2.0",
                "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
                "introspection_endpoint": f"{root}/oauth2/v2.0/introspect",
                "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "claims_supported": ["sub", "iss", "aud", "exp", "iat", "preferred_username", "tid", "oid"],
            }
        )

    async def instance(self, request: Request) -> Response:
        base, host = _base(request), request.url.netloc
        tenant = request.path_params["tenant"]
        aliases = {"preferred_network": host, "preferred_cache": host, "aliases": [host]}
        endpoint = f"{base}/{tenant}/v2.0/.well-known/openid-configuration"
        return JSONResponse({"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": [aliases]})

    async def keys(self, request: Request) -> Response:
        return JSONResponse(self.emulator.key.jwks())

    async def introspect(self, request: Request) -> Response:
        parsed = await _parse(request)
        credentials = basic_credentials(request.headers.get("authorization", ""))
        parsed = replace(parsed, form={**parsed.form, **credentials})
        return _response(self.emulator.introspect(parsed), request)

    async def authorize(self, request: Request) -> Response:
        query = request.query_params
        redirect_uri = query.get("redirect_uri", "")
        try:
            client = self.emulator.registrations.find(query.get("client_id"))
        except Refused as no:
            return _page("Sign-in is not possible", html.escape(no.refusal.message), 400)
        if urlsplit(redirect_uri).scheme not in {"http", "https"} or query.get("response_type") != "code":
            return _page("Sign-in is not possible", "redirect_uri or response_type is missing or wrong.", 400)
        if not query.get("login_hint"):
            return _page("Sign in", _form("get", "login_hint", "E-mail", dict(query)))
        code = self.emulator.authorize(
            AuthorizationCode(
                email=query["login_hint"],
                client_id=client.client_id,
                redirect_uri=redirect_uri,
                scope=query.get("scope", ""),
                issued_at=self.emulator.clock(),
                nonce=query.get("nonce"),
                challenge=query.get("code_challenge"),
            )
        )
        parameters = {"code": code} | ({"state": query["state"]} if "state" in query else {})
        joint = "&" if urlsplit(redirect_uri).query else "?"
        return RedirectResponse(redirect_uri + joint + urlencode(parameters), 302)

    async def device_code(self, request: Request) -> Response:
        parsed = await _parse(request)
        try:
            device = self.emulator.start_device(parsed.form.get("client_id", ""), parsed.form.get("scope", ""))
        except Refused as no:
            return _response(self.emulator.respond(parsed, no.refusal), request)
        address = f"{_base(request)}/devicelogin"
        document = {
            "user_code": device.user_code,
            "device_code": device.device_code,
            "verification_uri": address,
            "expires_in": int(DEVICE_CODE_LIFETIME.total_seconds()),
            "interval": _POLL_INTERVAL,
            "message": f"To sign in, open {address} in a browser and enter the code {device.user_code}.",
        }
        return JSONResponse(document)

    async def device_page(self, request: Request) -> Response:
        return _page("Enter code", _form("post", "email", "E-mail", {}, code=request.query_params.get("otc", "")))

    async def device_approval(self, request: Request) -> Response:
        form = await _form_fields(request)
        if not form.get("email"):
            return _page("Enter code", "An e-mail is needed.", 400)
        try:
            self.emulator.approve_device(form.get("code", ""), form["email"])
        except KeyError:
            return _page("Enter code", "No sign-in is waiting for this code.", 404)
        return _page("Signed in", "You may close this page.")


async def _parse(request: Request) -> EmulatorRequest:
    return EmulatorRequest(
        form=await _form_fields(request),
        base_url=_base(request),
        tenant=request.path_params["tenant"],
        correlation_id=request.headers.get("client-request-id", ""),
        origin=request.headers.get("origin", ""),
    )


async def _form_fields(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace")))


async def _cut_off(request: Request, hang: Hang) -> bool:
    """Wait as the fault says, and return whether the server was stopped meanwhile. A client that gives up does not end
    the wait."""
    stopping: asyncio.Event = request.scope.get("state", {}).get("stopping") or asyncio.Event()
    try:
        return await asyncio.wait_for(stopping.wait(), hang.seconds)
    except TimeoutError:
        return False


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _response(response: EmulatorResponse, request: Request) -> Response:
    if response.reset:
        return Severed()
    headers = {
        "cache-control": "no-store, no-cache",
        "pragma": "no-cache",
        "x-ms-request-id": str(uuid.uuid4()),
    }
    if correlation_id := request.headers.get("client-request-id"):
        headers["client-request-id"] = correlation_id
    if response.retry_after is not None:
        headers["retry-after"] = str(response.retry_after)
    return Response(response.body, response.status, headers, response.content_type)


def _page(title: str, content: str, status: int = 200) -> Response:
    return HTMLResponse(f"<!DOCTYPE html><title>{title}</title><h1>{title}</h1><p>{content}</p>", status)


def _form(method: str, name: str, label: str, hidden: dict[str, str], code: str | None = None) -> str:
    kept = "".join(
        f'<input type="hidden" name="{html.escape(key)}" value="{html.escape(value)}">'
        for key, value in hidden.items()
        if key != name
    )
    if code is not None:
        kept += f'<label>Code <input name="code" value="{html.escape(code)}" required></label> '
    field = f'<label>{label} <input name="{name}" type="email" required></label>'
    return f'<form method="{method}">{kept}{field} <button>Next</button></form>'
