"""What a mail server refuses, beside a token: TokenRefused, in worker.domain.errors, is the third of them."""

from datetime import timedelta
from typing import ClassVar

from worker.domain.errors import AccountError, Unavailable


class MailboxRefused(AccountError):
    """The token is right and the mailbox stays closed: its licence, its rights, the protocol or the scope."""

    code = "mailbox_refused"
    advice: ClassVar[str] = (
        "Signing in again does not help. Check that the mailbox exists and is licensed, that the protocol is switched "
        "on for it, that the user may open it, and that the token's scope covers the protocol."
    )

    def __init__(self, email: str, said: str) -> None:
        super().__init__(email, f"the mail server knows the user and refuses the mailbox: {said}")
        self.said = said


class MailUnavailable(Unavailable):
    """The mail server cannot be reached, is overloaded or throttles; ``retry_after`` is there if it asked for it."""

    code = "mail_unavailable"
    advice: ClassVar[str] = "Nothing is wrong with the account. Try again later."

    def __init__(self, host: str, said: str, retry_after: timedelta | None = None) -> None:
        super().__init__(f"{host}: {said}")
        self.host = host
        self.said = said
        self.retry_after = retry_after
