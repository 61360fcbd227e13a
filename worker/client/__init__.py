"""The package that a consumer imports. One call returns a live access token for a mailbox.

>>> with TokenClient.from_env() as client:                              # doctest: +SKIP
...     token = client.get("ann@contoso.com", min_ttl=300)
...     token.value, token.expires_at, token.version
"""

from worker.client.asynchronous import AsyncTokenClient
from worker.client.blocking import TokenClient
from worker.domain.account import MailServers
from worker.domain.cache_entry import MailAccount
from worker.domain.errors import (
    AccountError,
    AccountInactive,
    BackingOff,
    BlockedByAdmin,
    ClientClosed,
    ClientMisconfigured,
    ConfigurationError,
    InvalidInput,
    NeedsUser,
    StorageError,
    TokenRefused,
    Unavailable,
    UnknownAccount,
    UnreadableSecret,
    WorkerError,
)
from worker.domain.token import AccessToken
from worker.service.accounts.watch import AttentionNeeded

__all__ = [
    "AccessToken",
    "AccountError",
    "AccountInactive",
    "AsyncTokenClient",
    "AttentionNeeded",
    "BackingOff",
    "BlockedByAdmin",
    "ClientClosed",
    "ClientMisconfigured",
    "ConfigurationError",
    "InvalidInput",
    "MailAccount",
    "MailServers",
    "NeedsUser",
    "StorageError",
    "TokenClient",
    "TokenRefused",
    "Unavailable",
    "UnknownAccount",
    "UnreadableSecret",
    "WorkerError",
]
