"""Everything this package raises on purpose.

* WorkerError
    * ConfigurationError
    * InvalidInput
    * UnreadableSecret
        * UnknownKey
        * AlteredAccount
    * Unavailable
        * DatabaseUnavailable
    * StorageError
    * AccountError
        * UnknownAccount
        * AccountInactive
        * NeedsUser
        * BlockedByAdmin
        * BackingOff
        * ClientMisconfigured
        * TokenRefused
    * ClientClosed

``code`` is for machines and stays; the text is for people and may change. No message ever holds a token or a secret.
"""

from datetime import timedelta
from typing import ClassVar

from worker.domain.advice import advice


class WorkerError(Exception):
    """The work could not be done."""

    code: ClassVar[str] = "failed"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__ or self.code)


class ConfigurationError(WorkerError):
    """A setting is missing or malformed; the message says what to set."""

    code = "configuration"


class InvalidInput(WorkerError):
    """An argument or a line of a file cannot be used; the message says which part and why."""

    code = "invalid_input"


class UnreadableSecret(WorkerError):
    """A stored secret cannot be opened with the keys at hand."""

    code = "unreadable"


class UnknownKey(UnreadableSecret):
    """A stored secret is sealed under a key that this process does not have; another may."""


class AlteredAccount(UnreadableSecret):
    """An account was changed in Postgres beside this program; undo that and resume it, or connect it again."""

    code = "altered"


class Unavailable(WorkerError):
    """Neither a usable token nor a way to get one right now; try again shortly."""

    code = "unavailable"


class DatabaseUnavailable(Unavailable):
    """Postgres cannot be reached or written right now."""


class StorageError(WorkerError):
    """Postgres refused a statement that should have been right: a bug here, or a schema that is not ours."""

    code = "storage"


class ClientClosed(WorkerError):
    """This client has been closed; make a new one."""

    code = "closed"


class AccountError(WorkerError):
    """Something about one account."""

    code = "account"
    reason: str = ""

    def __init__(self, email: str, message: str) -> None:
        super().__init__(f"{email}: {message}")
        self.email = email

    @property
    def advice(self) -> str:
        """One sentence for the account's user."""
        return advice(self.code, self.reason, self.email)


class UnknownAccount(AccountError):
    """No such account is stored."""

    code = "unknown_account"

    def __init__(self, email: str) -> None:
        super().__init__(email, "no such account; import it or connect it first")


class AccountInactive(AccountError):
    """The account is paused, disconnected, unreadable or does not use OAuth, and no live token is left.

    ``state`` says which, for an operator.
    """

    code = "inactive"

    def __init__(self, email: str, state: str) -> None:
        super().__init__(email, f"is {state}, so its token is not refreshed")
        self.state = state


class NeedsUser(AccountError):
    """Only the account's user can help, by signing in again.

    ``reason`` is Microsoft's code; ``claims`` is the challenge to pass to the authorization endpoint, if there was one.
    """

    code = "needs_user"

    def __init__(self, email: str, reason: str, claims: str | None = None) -> None:
        super().__init__(email, f"the user must sign in again ({reason})")
        self.reason = reason
        self.claims = claims


class BlockedByAdmin(AccountError):
    """The tenant's policy or administrator stands in the way; signing in again may not help."""

    code = "blocked_by_admin"

    def __init__(self, email: str, reason: str) -> None:
        super().__init__(email, f"is blocked by the tenant's administrator or policy ({reason})")
        self.reason = reason


class BackingOff(AccountError):
    """The last refresh failed and the next attempt is not due yet; ``retry_after`` says when it is."""

    code = "backing_off"

    def __init__(self, email: str, reason: str, retry_after: timedelta) -> None:
        seconds = max(0, round(retry_after.total_seconds()))
        super().__init__(email, f"the last refresh failed ({reason}); the next attempt is due in {seconds} s")
        self.reason = reason
        self.retry_after = retry_after


class ClientMisconfigured(AccountError):
    """The app registration is wrong, or unknown in the account's tenant, or what is stored of the account is wrong.

    ``reason`` says which. The account cannot be refreshed until a person acts.
    """

    code = "client_misconfigured"

    def __init__(self, email: str, client: str, reason: str) -> None:
        super().__init__(email, f"app registration {client!r} is misconfigured ({reason})")
        self.client = client
        self.reason = reason


class TokenRefused(AccountError):
    """The mail server refuses fresh tokens too: it is the mailbox, its rights or the scope, and no refresh will help.

    ``retry_after`` says when a refusal will lead to another refresh, if that is known.
    """

    code = "token_refused"

    def __init__(self, email: str, retry_after: timedelta | None = None) -> None:
        super().__init__(email, "fresh tokens are refused; it is the mailbox, its rights or the scope")
        self.retry_after = retry_after
