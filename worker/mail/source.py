"""The source of a login's tokens: TokenClient and AsyncTokenClient are such sources."""

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from worker.domain.cache_entry import MailAccount
from worker.domain.proxy import ProxyRules
from worker.domain.token import AccessToken


class TokenSource(Protocol):
    """Both methods raise an AccountError, UnreadableSecret or Unavailable."""

    @property
    def mail_hosts(self) -> Collection[str]:
        """The hosts that may receive a token."""
        ...

    def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount:
        """Where the mailbox is, its login name, and a token.

        The token lives for ``min_ttl`` more seconds, if one can be had that does.
        """
        ...

    def report_rejected(self, email: str, version: int) -> AccessToken:
        """A newer token than the one of this version, which a mail server rejected; refreshes at most once."""
        ...


class AsyncTokenSource(Protocol):
    """The same, awaited."""

    @property
    def mail_hosts(self) -> Collection[str]: ...

    async def load(self, email: str, *, min_ttl: float | None = None) -> MailAccount: ...

    async def report_rejected(self, email: str, version: int) -> AccessToken: ...


@runtime_checkable
class ProxiedSource(Protocol):
    """A source that knows the proxy to the mail servers; without it they are reached directly."""

    @property
    def proxies(self) -> ProxyRules: ...
