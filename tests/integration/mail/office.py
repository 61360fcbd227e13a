"""Users with mailboxes at Dovecot and tokens of the emulator."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.integration.mail.dovecot import Dovecot
from worker.bootstrap import Services
from worker.clock import utcnow
from worker.devkit.emulator import Emulator
from worker.domain.account import Grant
from worker.domain.token import Secret

ANN = "ann@contoso.com"
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Office:
    services: Services
    emulator: Emulator
    dovecot: Dovecot

    def sign_in(
        self,
        email: str = ANN,
        *,
        lifetime: timedelta = HOUR,
        believed: timedelta | None = None,
        later: timedelta = HOUR,
    ) -> str:
        """Sign the user in, and return the access token.

        The token lives for ``lifetime``, but is stored as living for ``believed`` if that is given. Later tokens live
        for ``later``.
        """
        granted = self.emulator.enrol(email, access_token_lifetime=lifetime)
        self.emulator.enrol(email, access_token_lifetime=later)
        grant = Grant(
            email=email,
            refresh_token=Secret(granted.refresh_token),
            access_token=Secret(granted.access_token),
            expires_at=utcnow() + (believed or lifetime),
            mail=self.dovecot.servers,
        )
        self.services.accounts.save([grant])
        return granted.access_token

    def refreshes(self, email: str = ANN) -> int:
        return self.emulator.statistics().by_account[email].refreshes

    def expiry(self, email: str = ANN) -> datetime:
        """When the stored token expires."""
        expiry = self.services.accounts.find(email).expires_at
        assert expiry is not None
        return expiry
