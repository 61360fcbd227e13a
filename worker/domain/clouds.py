"""Microsoft's national clouds: authority, scopes and mail hosts belong together.

Sources: learn.microsoft.com, "National clouds" (authorities), "Office 365 U.S. Government GCC High endpoints", "... DoD
endpoints" and "Office 365 operated by 21Vianet" (hosts).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from worker.domain.account import MailServers


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """A cloud with an identity platform of its own. ``host`` is that of its authorities."""

    host: str
    mail: MailServers

    @property
    def authority(self) -> str:
        return f"https://{self.host}/common"

    @property
    def scopes(self) -> str:
        """IMAP and SMTP, of the resource that the mail servers belong to."""
        resource = f"https://{self.mail.imap_host}"
        return f"{resource}/IMAP.AccessAsUser.All {resource}/SMTP.Send"


def _cloud(host: str, outlook: str, smtp: str) -> Cloud:
    return Cloud(host=host, mail=MailServers(imap_host=outlook, pop_host=outlook, smtp_host=smtp))


#: By the names of WORKER_CLOUD.
CLOUDS: Mapping[str, Cloud] = MappingProxyType(
    {
        "us-gov": _cloud("login.microsoftonline.us", "outlook.office365.us", "smtp.office365.us"),
        "us-dod": _cloud("login.microsoftonline.us", "outlook-dod.office365.us", "outlook-dod.office365.us"),
        "china": _cloud("login.partner.microsoftonline.cn", "partner.outlook.cn", "smtp.partner.outlook.cn"),
    }
)
