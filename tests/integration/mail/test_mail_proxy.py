"""Every way into a mailbox goes through the proxy of the settings, and says so if the proxy refuses."""

from ssl import SSLContext

import pytest

from tests.connect_proxy import REFUSAL, ConnectProxy
from tests.integration.mail.doors import DOORS, Door
from tests.integration.mail.office import ANN, Office
from tests.integration.mail.sources import ServiceSource
from worker.domain.proxy import ProxyRules, parse_proxy
from worker.mail import MailUnavailable
from worker.settings import Settings

pytestmark = pytest.mark.parametrize("door", DOORS)


def test_a_mailbox_is_opened_through_the_proxy(
    office: Office, settings: Settings, trust: SSLContext, door: Door
) -> None:
    office.sign_in()
    with ConnectProxy(credentials="erin:p@w") as proxy:
        rules = ProxyRules(proxy=parse_proxy(f"http://erin:p%40w@127.0.0.1:{proxy.port}"))
        with ServiceSource(settings) as source:
            door(source, ANN, ssl_context=trust, proxies=rules)

        assert [target.rpartition(":")[0] for target in proxy.targets] == ["localhost"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(REFUSAL, "HTTP 403"), (b"", "closed the connection"), (b"SSH-2.0\r\n\r\n", "HTTP ?"), (b"x" * 20_000, "no end")],
    ids=["refusal", "nothing", "no HTTP", "flood"],
)
def test_a_refusal_of_the_proxy_is_called_so(
    office: Office, source: ServiceSource, trust: SSLContext, door: Door, *, answer: bytes, words: str
) -> None:
    office.sign_in()
    with ConnectProxy(answer=answer) as proxy:
        rules = ProxyRules(proxy=parse_proxy(proxy.url))
        with pytest.raises(MailUnavailable, match="the proxy") as caught:
            door(source, ANN, ssl_context=trust, proxies=rules)

    assert words in str(caught.value)
    assert source.reported == []


def test_a_mail_host_of_no_proxy_is_reached_directly(
    office: Office, source: ServiceSource, trust: SSLContext, door: Door
) -> None:
    office.sign_in()
    with ConnectProxy(answer=REFUSAL) as proxy:
        door(
            source, ANN, ssl_context=trust, proxies=ProxyRules(proxy=parse_proxy(proxy.url), exceptions=("localhost",))
        )

        assert proxy.targets == []
