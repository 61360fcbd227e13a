"""Responses of Microsoft with a side effect that happens before the response is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime

from worker.devkit.emulator import OAuthError, Tampered, oauth_error


@dataclass(frozen=True)
class GrantWith(Tampered):
    """A usual grant. ``meanwhile`` runs after the grant and before the response is sent."""

    meanwhile: Callable[[], object] = field(kw_only=True)

    def bend(self, document: Mapping[str, object]) -> dict[str, object]:
        self.meanwhile()
        return super().bend(document)


@dataclass(frozen=True)
class RefusalWith(OAuthError):
    """A usual refusal. ``meanwhile`` runs before the response is sent."""

    meanwhile: Callable[[], object] = field(kw_only=True)

    def body(self, *, now: datetime, base_url: str, correlation_id: str) -> bytes:
        self.meanwhile()
        return super().body(now=now, base_url=base_url, correlation_id=correlation_id)


def refusal_with(code: str, meanwhile: Callable[[], object]) -> RefusalWith:
    usual = oauth_error(code)
    return RefusalWith(**{each.name: getattr(usual, each.name) for each in fields(usual)}, meanwhile=meanwhile)
