"""The hosts that may receive a token.

An account's row names its mail servers; a changed row must not send the token elsewhere.
"""

import ipaddress
import re
from collections.abc import Collection

from worker.domain.errors import ConfigurationError
from worker.mail.errors import MailHostNotAllowed

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


def check_mail_host(host: str, allowed: Collection[str] = MICROSOFT_MAIL_HOSTS) -> None:
    """Raises MailHostNotAllowed unless ``host`` is one of ``allowed``, exactly but for case and a final dot."""
    if _normal(host) not in {_normal(each) for each in allowed}:
        raise MailHostNotAllowed(host)


def parse_mail_hosts(setting: str) -> frozenset[str]:
    """Microsoft's hosts and those of WORKER_MAIL_HOSTS, comma separated. Raises ConfigurationError."""
    added = {_normal(host.strip()) for host in setting.split(",") if host.strip()}
    for host in sorted(added):
        if not is_host_name(host):
            raise ConfigurationError(f"WORKER_MAIL_HOSTS: {host!r} is not a host name; write names with commas between")
    return MICROSOFT_MAIL_HOSTS | added


def _normal(host: str) -> str:
    return host.lower().removesuffix(".")
