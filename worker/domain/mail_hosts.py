"""The hosts that may receive a token.

An account's row names its mail servers; a changed row must not send the token elsewhere.
"""

from collections.abc import Collection

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
