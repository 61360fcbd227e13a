"""Golden responses of the token endpoint and their outcomes; ``microsoft/*.json`` is the data."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from worker.domain.http import HttpResponse
from worker.domain.outcome import (
    Misconfigured,
    Outcome,
    ReauthRequired,
    Refreshed,
    Throttled,
    Transient,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One response. ``content`` is its body in bytes."""

    name: str
    status: int
    content: bytes
    expected: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def response(self) -> HttpResponse:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return HttpResponse(self.status, headers, self.content)


def load() -> list[Vector]:
    """All vectors. The name of each begins with that of its file."""
    return [
        _vector(path.stem, case)
        for path in sorted((Path(__file__).parent / "microsoft").glob("*.json"))
        for case in json.loads(path.read_text())["cases"]
    ]


def describe(outcome: Outcome, *, obtained_at: datetime) -> dict[str, Any]:
    """An outcome in the words of the vectors, with all fields except the correlation id."""
    return {"outcome": outcome.kind, "code": outcome.code, **_details(outcome, obtained_at)}


def _details(outcome: Outcome, obtained_at: datetime) -> dict[str, Any]:
    match outcome:
        case Refreshed():
            return {
                "access_token": outcome.access_token.reveal(),
                "refresh_token": outcome.refresh_token and outcome.refresh_token.reveal(),
                "expires_in": _seconds(outcome.expires_at - obtained_at),
                "refresh_in": _seconds(outcome.refresh_on - obtained_at if outcome.refresh_on else None),
            }
        case Throttled():
            return {"retry_after": _seconds(outcome.retry_after), "scope": outcome.scope.value}
        case Transient():
            return {"retry_after": _seconds(outcome.retry_after)}
        case ReauthRequired():
            return {"certain": outcome.certain, "claims": outcome.claims}
        case Misconfigured():
            return {"scope": outcome.scope.value}
        case _:
            return {}


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _vector(group: str, case: dict[str, Any]) -> Vector:
    return Vector(
        name=f"{group}: {case['name']}",
        status=case["status"],
        content=_content(case),
        expected=case["expected"],
        headers=case.get("headers", {}),
    )


def _content(case: dict[str, Any]) -> bytes:
    if "raw_latin1" in case:
        return str(case["raw_latin1"]).encode("latin-1")
    return (case["text"] if "text" in case else json.dumps(case["body"])).encode()
