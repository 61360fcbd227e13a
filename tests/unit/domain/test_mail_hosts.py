"""The hosts that may receive a token."""

import pytest

from worker.domain.account import MailServers
from worker.domain.errors import InvalidInput
from worker.domain.host_names import is_host_name
from worker.domain.mail_hosts import MICROSOFT_MAIL_HOSTS, is_mail_host, parse_mail_hosts


def test_the_hosts_of_a_new_account_are_allowed() -> None:
    servers = MailServers()
    for host in (servers.imap_host, servers.pop_host, servers.smtp_host):
        assert is_mail_host(host, MICROSOFT_MAIL_HOSTS)
        assert is_mail_host(f"{host.upper()}.", MICROSOFT_MAIL_HOSTS)


@pytest.mark.parametrize(
    "host", ["evil.example", "outlook.office365.com.evil.example", "office365.com", "169.254.169.254", "", "a\nb"]
)
def test_other_hosts_are_refused(host: str) -> None:
    assert not is_mail_host(host, MICROSOFT_MAIL_HOSTS)


def test_an_operator_adds_hosts() -> None:
    hosts = parse_mail_hosts("imap.gmail.com, Mail.Contoso.com.,")
    assert hosts == MICROSOFT_MAIL_HOSTS | {"imap.gmail.com", "mail.contoso.com"}
    assert is_mail_host("IMAP.gmail.com", hosts)
    assert parse_mail_hosts("") == MICROSOFT_MAIL_HOSTS


@pytest.mark.parametrize("setting", ["outlook..office365.com", "https://imap.gmail.com", "a b", "x" * 64])
def test_a_malformed_host_of_the_operator_is_an_error(setting: str) -> None:
    with pytest.raises(InvalidInput, match="must be host names"):
        parse_mail_hosts(setting)


@pytest.mark.parametrize("host", ["localhost", "a.b-c.d", "münchen.example", "::1", "127.0.0.1", "x" * 63 + ".de"])
def test_a_host_name(host: str) -> None:
    assert is_host_name(host)


@pytest.mark.parametrize("host", ["", ".", "a..b", "-a.b", "a_b .c", "a\nb", "x" * 64, "a." * 127 + "a", "\ud800"])
def test_no_host_name(host: str) -> None:
    assert not is_host_name(host)
