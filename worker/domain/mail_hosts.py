"""The hosts that may receive a token.

An account's row names its mail servers; a changed row must not send the token elsewhere.
"""

import ipaddress
import re
from collections.abc import Collection

from worker.domain.errors import InvalidInput

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

_NAME_LIMIT = 253  # characters, RFC 1035 section 2.3.4
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def is_host_name(host: str) -> bool:
    """Whether ``host`` can be looked up at all: a DNS name, international ones included, or an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            name = _normal(host).encode("idna").decode()
        except UnicodeError:
            return False
        return len(name) <= _NAME_LIMIT and all(map(_LABEL.fullmatch, name.split(".")))
    return True


def is_mail_host(host: str, allowed: Collection[str]) -> bool:
    """Whether ``host`` is one of ``allowed``. Case and a final dot do not matter."""
    return _normal(host) in {_normal(each) for each in allowed}


def parse_mail_hosts(names: str) -> frozenset[str]:
    """Microsoft's hosts and those in ``names``, which commas separate. Raises InvalidInput."""
    added = {_normal(name.strip()) for name in names.split(",") if name.strip()}
    if not all(map(is_host_name, added)):
        msg = "must be host names with commas between them, such as imap.contoso.com,smtp.contoso.com"
        raise InvalidInput(msg)
    return MICROSOFT_MAIL_HOSTS | added


def _normal(host: str) -> str:
    return host.lower().removesuffix(".")
