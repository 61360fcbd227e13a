"""What a mail server refuses, beside a token: TokenRefused, in worker.domain.errors, is the third of them."""

from datetime import timedelta

from worker.domain.errors import AccountError, Unavailable


class MailboxRefused(AccountError):
    """The token is right and the mailbox stays closed: its licence, its rights, the protocol or the scope."""

    code = "mailbox_refused"

    def __init__(self, email: str, said: str) -> None:
        super().__init__(email, f"the mail server knows the user and refuses the mailbox: {said}")
        self.said = said


class MailUnavailable(Unavailable):
    """The mail server cannot be reached, is overloaded or throttles; ``retry_after`` is there if it asked for it."""

    code = "mail_unavailable"

    def __init__(self, host: str, said: str, retry_after: timedelta | None = None) -> None:
        super().__init__(f"{host}: {said}")
        self.host = host
        self.said = said
        self.retry_after = retry_after
