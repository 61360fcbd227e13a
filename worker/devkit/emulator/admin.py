"""The emulator's admin API under `/_emulator/`, for tests in other processes and the command line.

It demands no credentials and hands out tokens. Never expose it beyond loopback.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker.devkit.emulator.accounts import Grant, Lifetime
from worker.devkit.emulator.faults import Fault, Hang, RawAnswer, Reset, fault_named
from worker.devkit.emulator.oauth_errors import oauth_error
from worker.devkit.emulator.statistics import AccountStatistics

if TYPE_CHECKING:
    from worker.devkit.emulator.core import Emulator

Document = dict[str, Any]
_ERROR_OPTIONS = ("error", "message", "status", "suberror", "claims", "retry_after")
_RAW_OPTIONS = ("status", "content_type", "retry_after")


def admin_routes(emulator: "Emulator") -> list[Route]:
    admin = _Admin(emulator)
    return [
        Route("/_emulator/statistics", _guarded(admin.statistics)),
        Route("/_emulator/accounts", _guarded(admin.enrol), methods=["POST"]),
        Route("/_emulator/accounts/{email}", _guarded(admin.account)),
        Route("/_emulator/terms", _guarded(admin.change_terms), methods=["POST"]),
        Route("/_emulator/faults", _guarded(admin.add_fault), methods=["POST"]),
        Route("/_emulator/faults", _guarded(admin.clear_faults), methods=["DELETE"]),
        Route("/_emulator/device/approve", _guarded(admin.approve), methods=["POST"]),
        Route("/_emulator/revoke", _guarded(admin.revoke), methods=["POST"]),
    ]


def _guarded(handle: Callable[[Request], Awaitable[Document]]) -> Callable[[Request], Awaitable[Response]]:
    @wraps(handle)
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await handle(request))
        except KeyError as error:
            return JSONResponse({"detail": f"not found: {error.args[0]}"}, 404)
        except (TypeError, ValueError) as error:
            return JSONResponse({"detail": str(error)}, 400)

    return endpoint


@dataclass(frozen=True, slots=True)
class _Admin:
    emulator: "Emulator"

    async def statistics(self, request: Request) -> Document:
        seen = self.emulator.statistics()
        return {
            "requests": seen.requests,
            "successes": seen.successes,
            "failures": seen.failures,
            "refreshes": seen.refreshes,
            "by_account": {email: _counts(each) for email, each in seen.by_account.items()},
        }

    async def enrol(self, request: Request) -> Document:
        wanted = await _body(request)
        grant = self.emulator.enrol(_text(wanted, "email"), **_terms(wanted), **_chosen(wanted, ("client_id", "scope")))
        return _grant(grant)

    async def change_terms(self, request: Request) -> Document:
        wanted = await _body(request)
        self.emulator.change_terms(_text(wanted, "email"), **_terms(wanted))
        return {}

    async def account(self, request: Request) -> Document:
        email = request.path_params["email"].strip().lower()
        token = self.emulator.newest_refresh_token(email)
        counts = self.emulator.statistics().by_account[email]
        return {
            "email": email,
            "refresh_token_sha256": hashlib.sha256(token.encode()).hexdigest(),
            "refresh_token_accepted": self.emulator.accepts(token),
            **_counts(counts),
        }

    async def add_fault(self, request: Request) -> Document:
        wanted = await _body(request)
        self.emulator.add_fault(_fault(wanted), wanted.get("email"), wanted.get("times"))
        return {}

    async def clear_faults(self, request: Request) -> Document:
        self.emulator.clear_faults(request.query_params.get("email"))
        return {}

    async def approve(self, request: Request) -> Document:
        wanted = await _body(request)
        self.emulator.approve_device(_text(wanted, "user_code"), _text(wanted, "email"))
        return {}

    async def revoke(self, request: Request) -> Document:
        self.emulator.revoke(_text(await _body(request), "email"))
        return {}


async def _body(request: Request) -> Document:
    document = await request.json()
    if not isinstance(document, dict):
        raise TypeError("a JSON object is needed")
    return document


def _text(wanted: Document, key: str) -> str:
    value = wanted.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is needed")
    return value


def _terms(wanted: Document) -> Document:
    return {
        "access_token_lifetime": _lifetime(wanted.get("access_token_lifetime")),
        "refresh_token_lifetime": _seconds(wanted.get("refresh_token_lifetime")),
        "rotate": wanted.get("rotate"),
        "strict": wanted.get("strict"),
        "refresh_in": _seconds(wanted.get("refresh_in")),
    }


def _fault(wanted: Document) -> Fault:
    name = _text(wanted, "fault")
    if name == "hang":
        return Hang(float(wanted.get("seconds", 30)), bool(wanted.get("after", False)))
    if name == "reset":
        return Reset(bool(wanted.get("after", False)))
    if name == "raw":
        return RawAnswer(str(wanted.get("body", "")).encode(), **_chosen(wanted, _RAW_OPTIONS))
    options = _chosen(wanted, _ERROR_OPTIONS)
    fault = fault_named(name)
    if isinstance(fault, RawAnswer):
        return replace(fault, **options)
    return oauth_error(name, **options) if options else fault


def _chosen(wanted: Document, names: tuple[str, ...]) -> Document:
    return {name: wanted[name] for name in names if name in wanted}


def _lifetime(value: object) -> Lifetime | None:
    if isinstance(value, list):
        shortest, longest = (timedelta(seconds=each) for each in value)
        return shortest, longest
    return _seconds(value)


def _seconds(value: object) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError("a lifetime is a number of seconds")
    return timedelta(seconds=value)


def _grant(grant: Grant) -> Document:
    return {
        "email": grant.email,
        "expires_in": grant.expires_in,
        "scope": grant.scope,
        "client_id": grant.client_id,
        "access_token": grant.access_token,
        "refresh_token": grant.refresh_token,
    }


def _counts(account: AccountStatistics) -> Document:
    return {
        "requests": account.requests,
        "successes": account.successes,
        "failures": account.failures,
        "refreshes": account.refreshes,
        "instants": [each.isoformat() for each in account.instants],
        "refreshed_at": [each.isoformat() for each in account.refreshed_at],
    }
