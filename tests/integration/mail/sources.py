"""Sources of tokens: a TokenClient, and a source that makes its tokens itself."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from worker.client import TokenClient
from worker.domain.account import MailServers
from worker.domain.cache_entry import MailAccount
from worker.domain.errors import TokenRefused
from worker.domain.mail_hosts import MICROSOFT_MAIL_HOSTS
from worker.domain.proxy import DIRECT, ProxyRules
from worker.domain.token import AccessToken, Secret
from worker.mail import TokenSource

LOCAL = frozenset({"localhost"})  # mail hosts: where the servers of the tests are


class ServiceSource(TokenClient):
    """A client that records the versions of rejected tokens."""

    @cached_property
    def reported(self) -> list[int]:
        return []

    def report_rejected(self, email: str, version: int) -> AccessToken:
        self.reported.append(version)
        return super().report_rejected(email, version)


@dataclass(frozen=True, slots=True)
class HeldSource:
    """An account that gets a new token at each report."""

    servers: MailServers
    lifetime: timedelta = timedelta(hours=1)
    use_oauth: bool = True
    newest: int = 99  # version; a report of this one is refused, as if it repeated another process's
    mail_hosts: frozenset[str] = MICROSOFT_MAIL_HOSTS
    proxies: ProxyRules = DIRECT
    wanted: list[float | None] = field(default_factory=list)
    reported: list[tuple[str, int]] = field(default_factory=list)

    def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        self.wanted.append(min_ttl)
        token = self.token(email, 1) if self.use_oauth else None
        return MailAccount(email=email, servers=self.servers, use_oauth=self.use_oauth, token=token)

    def report_rejected(self, email: str, version: int) -> AccessToken:
        self.reported.append((email, version))
        if version >= self.newest:
            raise TokenRefused(email, timedelta(minutes=9))
        return self.token(email, version + 1)

    def token(self, email: str, version: int) -> AccessToken:
        """A token of the same length as Microsoft's."""
        now = datetime.now(UTC)  # noqa: TID251 - sessions use the real clock
        secret = Secret(f"token-{version}." + "eyJ0eXAiOiJKV1QiLCJub25jZSI" * 70)
        return AccessToken(email=email, secret=secret, obtained_at=now, expires_at=now + self.lifetime, version=version)


@dataclass(frozen=True, slots=True)
class Awaited:
    """A HeldSource for asyncio."""

    source: TokenSource

    @property
    def mail_hosts(self) -> Collection[str]:
        return self.source.mail_hosts

    async def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        return await asyncio.to_thread(self.source.load, email, min_ttl=min_ttl)

    async def report_rejected(self, email: str, version: int) -> AccessToken:
        return await asyncio.to_thread(self.source.report_rejected, email, version)
