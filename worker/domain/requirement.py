"""What a caller requires of an access token."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.domain.token import AccessToken


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequirement:
    """``min_ttl``: how long the token must still live. ``newer_than``: the version that a mail server has rejected."""

    min_ttl: timedelta | None = None
    newer_than: int | None = None

    def is_newer(self, token: AccessToken) -> bool:
        """Whether the token is another one than the rejected one."""
        return self.newer_than is None or token.version > self.newer_than

    def accepts(self, token: AccessToken | None, *, now: datetime) -> bool:
        """Whether the token is better than none: it lives, and was not rejected."""
        return token is not None and token.expires_at > now and self.is_newer(token)
