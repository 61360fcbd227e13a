"""The settings of the exporter, which has no secret but those of the stores' URLs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from worker.domain.account import DEFAULT_CLIENT
from worker.settings.models import BrokerSettings, DatabaseSettings
from worker.settings.values import ExpiryDate


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedCredential:
    """A credential of an app registration whose end is known: a certificate, or a secret with a date."""

    client: str
    slot: str  # current or next
    certificate: Path | None
    expires_on: date | None


class _Credentials(BaseModel):
    """The part of the settings of an app registration that is about the ends of its credentials."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    client_certificate: Path | None = None
    next_client_certificate: Path | None = None
    client_secret_expires: ExpiryDate | None = None
    next_client_secret_expires: ExpiryDate | None = None

    def dated(self, client: str) -> Sequence[DatedCredential]:
        slots = (
            ("current", self.client_certificate, self.client_secret_expires),
            ("next", self.next_client_certificate, self.next_client_secret_expires),
        )
        return [
            DatedCredential(client=client, slot=slot, certificate=certificate, expires_on=day)
            for slot, certificate, day in slots
            if certificate or day
        ]


class ExporterSettings(DatabaseSettings, BrokerSettings):
    """The settings of ``token-worker exporter``."""

    client_certificate: Path | None = None
    next_client_certificate: Path | None = None
    client_secret_expires: ExpiryDate | None = None
    next_client_secret_expires: ExpiryDate | None = None
    clients: dict[str, _Credentials] = Field(default={})

    _default: ClassVar[set[str]] = set(_Credentials.model_fields)

    @property
    def credentials(self) -> Sequence[DatedCredential]:
        """Those of the app registrations whose end is known."""
        default = _Credentials.model_validate(self.model_dump(include=self._default))
        registrations = {DEFAULT_CLIENT: default, **self.clients}
        return [dated for name, given in registrations.items() for dated in given.dated(name)]
