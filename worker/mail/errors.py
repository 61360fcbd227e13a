"""The errors for a mail server's refusals. TokenRefused, in worker.domain.errors, is the base of LoginRejected.

``said`` is what the server said: short, without tokens, control characters escaped.
"""

import re
from datetime import timedelta

from worker.domain.errors import AccountError, TokenRefused, Unavailable

_PERSONAL = re.compile(r".*@((outlook|hotmail|live|windowslive)\.([a-z]{2,3}\.)?[a-z]{2,3}|msn\.com|passport\.com)")


def _advice(email: str, problem: str) -> str:
    """Owners of a personal mailbox have no administrator; they switch IMAP and POP on by themselves."""
    if _PERSONAL.fullmatch(email.lower()):
        return f"{problem}; please open the settings of Outlook.com and let devices and apps use IMAP and POP."
    return (
        f"{problem}; please ask your administrator, or in a personal mailbox look in the settings of Outlook.com,"
        " whether IMAP, POP and SMTP are switched on."
    )


class MailboxRefused(AccountError):
    """The mailbox stays closed with any token: its licence, its rights, the protocol or the mechanism."""

    code = "mailbox_refused"

    def __init__(self, email: str, said: str) -> None:
        super().__init__(email, f"the mail server rejects the mailbox: {said}")
        self.said = said

    @property
    def advice(self) -> str:
        """One sentence for the account's user."""
        return _advice(self.email, "Your mailbox is closed to this application")


class LoginRejected(TokenRefused):
    """The mail server rejected a token and the newer one, too: it is the mailbox, its rights or the scope."""

    def __init__(self, email: str, said: str, retry_after: timedelta | None = None) -> None:
        super().__init__(email, retry_after)
        self.args = (f"{self}; the mail server said: {said}",)
        self.said = said

    @property
    def advice(self) -> str:
        """One sentence for the account's user."""
        return _advice(self.email, "Your mailbox rejects the sign-in")


class MailUnavailable(Unavailable):
    """The mail server is unreachable, overloaded, throttling or not understood; it may pass.

    ``retry_after`` is how long the server asked to be left alone, if it did.
    """

    code = "mail_unavailable"

    def __init__(self, host: str, said: str, retry_after: timedelta | None = None) -> None:
        super().__init__(f"{host}: {said}")
        self.host = host
        self.said = said
        self.retry_after = retry_after


class MailboxNotConnected(MailUnavailable):
    """The server took the token and could not open the mailbox: "User is authenticated but not connected".

    It passes most of the time. If it lasts for hours, ``user`` may not open the mailbox, or the scope is missing.
    """

    def __init__(self, host: str, said: str, retry_after: timedelta | None = None) -> None:
        super().__init__(host, said, retry_after)
        self.args = (f"{self} (this may pass; if it lasts for hours, check licence, scope and rights to the mailbox)",)
