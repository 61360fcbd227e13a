"""The hosts that may receive a token.

An account's row names its mail servers; a changed row must not send the token elsewhere.
"""

from collections.abc import Collection

from worker.domain.account import MailServers
from worker.domain.errors import InvalidInput
from worker.domain.host_names import normal_host, parse_hosts

#: Microsoft's. Sources: learn.microsoft.com, "POP, IMAP, and SMTP settings for Outlook.com", "Authenticate an IMAP, POP
#: or SMTP connection using OAuth", "Manage high volume emails"; for the national clouds "Office 365 U.S. Government GCC
#: High endpoints", "... DoD endpoints" and "Office 365 operated by 21Vianet".
MICROSOFT_MAIL_HOSTS = frozenset(
    {
        "outlook.office365.com",
        "outlook.office.com",
        "smtp.office365.com",
        "smtp-hve.office365.com",
        "imap-mail.outlook.com",
        "pop-mail.outlook.com",
        "smtp-mail.outlook.com",
        "outlook.office365.us",  # GCC High
        "smtp.office365.us",
        "outlook-dod.office365.us",  # Department of Defense
        "webmail.apps.mil",
        "partner.outlook.cn",  # China, operated by 21Vianet
        "smtp.partner.outlook.cn",
    }
)


_PORTS = range(1, 65_536)


class MailHostNotAllowed(InvalidInput):
    """A mail server of an account is not on the list of hosts that may receive tokens."""

    code = "mail_host_not_allowed"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"mail host {host[:80]!r} is not allowed: correct the account, or add the host to WORKER_MAIL_HOSTS"
        )
        self.host = host


def check_servers(servers: MailServers, allowed: Collection[str]) -> None:
    """Raises MailHostNotAllowed, or InvalidInput for a port that is none."""
    for name in ("imap", "smtp", "pop"):
        host, port = getattr(servers, f"{name}_host"), getattr(servers, f"{name}_port")
        if not isinstance(host, str) or not is_mail_host(host, allowed):
            raise MailHostNotAllowed(str(host))
        if isinstance(port, bool) or not isinstance(port, int) or port not in _PORTS:
            raise InvalidInput(f"{name}_port must be a number from 1 to 65535")


def is_mail_host(host: str, allowed: Collection[str]) -> bool:
    """Whether ``host`` is one of ``allowed``. Case and a final dot do not matter."""
    return normal_host(host) in {normal_host(each) for each in allowed}


def parse_mail_hosts(names: str) -> frozenset[str]:
    """Microsoft's hosts and those in ``names``, which commas separate. Raises InvalidInput."""
    added = parse_hosts(names)
    if added is None:
        msg = "must be host names with commas between them, such as imap.contoso.com,smtp.contoso.com"
        raise InvalidInput(msg)
    return MICROSOFT_MAIL_HOSTS | added
