"""The ends of credentials: of certificates by their own date, of secrets by the date in the settings."""

from collections.abc import Sequence
from datetime import UTC, datetime, time

import structlog
from cryptography.x509 import load_pem_x509_certificates
from prometheus_client.metrics_core import Metric

from worker.exporter import labels
from worker.exporter.families import gauges, seconds
from worker.settings import DatedCredential

_log = structlog.get_logger(__name__)


class Credentials:
    """The ends of those whose end is known. A file is read at each scrape, because it may be replaced."""

    def __init__(self, credentials: Sequence[DatedCredential]) -> None:
        self._credentials = credentials
        self._unreadable: set[DatedCredential] = set()

    def families(self) -> Sequence[Metric]:
        ends = {(labels.client(each.client), each.slot): self._expires_at(each) for each in self._credentials}
        samples = [(names, seconds(end)) for names, end in ends.items() if end is not None]
        meaning = "End of a client certificate, or of a client secret whose date is set"
        return [gauges("credential_expiry_timestamp_seconds", meaning, ["client", "slot"], samples)] if samples else []

    def _expires_at(self, credential: DatedCredential) -> datetime | None:
        if credential.certificate is None:
            return datetime.combine(credential.expires_on, time(tzinfo=UTC)) if credential.expires_on else None
        try:
            own, *_issuers = load_pem_x509_certificates(credential.certificate.read_bytes())
        except (OSError, ValueError):
            if credential not in self._unreadable:
                _log.warning("Certificate cannot be read", client=credential.client, slot=credential.slot)
            self._unreadable.add(credential)
            return None
        self._unreadable.discard(credential)
        return own.not_valid_after_utc
