"""An impostor between a process and its stores receives no password, because TLS is verified on every connection."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.deployment import BIN, inherited
from tests.hostile.tls_front import TlsFront
from tests.waiting import wait_for
from worker.broker import TaskSender
from worker.cache import connect
from worker.devkit.stack.process import Process
from worker.domain.account import account_id
from worker.domain.errors import ConfigurationError, Unavailable
from worker.settings import BrokerSettings, load

PASSWORD = "marker-password"
ANN = account_id("ann@contoso.com")


@pytest.fixture(name="impostor")
def _impostor(tmp_path: Path) -> Iterator[TlsFront]:
    """Its certificate is for another name, and by an authority that no process trusts."""
    with TlsFront(tmp_path, name="impostor.example") as front:
        yield front


@pytest.fixture(name="front")
def _front(tmp_path: Path, redis_url: str) -> Iterator[TlsFront]:
    """The real Redis behind TLS. Its certificate is for the right name, by a private authority."""
    real = urlsplit(redis_url)
    with TlsFront(tmp_path, name="localhost", target=(str(real.hostname), real.port or 6379)) as front:
        yield front


def broker(url: str) -> str:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WORKER_REDIS_URL", url)
        return load(BrokerSettings).broker


def test_a_consumer_sends_nothing_to_an_impostor(impostor: TlsFront) -> None:
    sender = TaskSender(broker(f"rediss://:{PASSWORD}@localhost:{impostor.port}/0"))

    with pytest.raises(Unavailable):
        sender.request_refresh(ANN, min_ttl=None, rejected=None)

    sender.close()
    assert impostor.connections > 0
    assert impostor.received == b""


def test_a_certificate_for_another_name_is_not_enough(impostor: TlsFront, monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ's client compares names only if it is given one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(impostor.ca_bundle))
    sender = TaskSender(f"amqps://user:{PASSWORD}@localhost:{impostor.port}/vhost")

    with pytest.raises(Unavailable):
        sender.request_refresh(ANN, min_ttl=None, rejected=None)

    sender.close()
    assert impostor.connections > 0
    assert impostor.received == b""


@pytest.mark.parametrize("role", ["worker", "beat", "flower"])
def test_no_process_sends_anything_to_an_impostor(impostor: TlsFront, tmp_path: Path, role: str) -> None:
    environment = {
        **inherited(),
        "WORKER_REDIS_URL": f"rediss://:{PASSWORD}@localhost:{impostor.port}/0",
        "WORKER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "WORKER_ENCRYPTION_KEYS": f"k1:{'A' * 43}=",
        "WORKER_CLIENT_ID": "app",
        "WORKER_CLIENT_SECRET": "secret",
        "WORKER_SWEEP_INTERVAL": "0.2",
        "FLOWER_PORT": "0",
    }
    process = Process([str(BIN / "celery"), "-A", "worker", role], log=tmp_path / "log", environment=environment)
    try:
        wait_for(lambda: impostor.connections >= 2, about=f"{role} to connect twice", processes=[process])
    finally:
        process.kill()
    assert impostor.received == b""


def test_a_private_authority_is_named_in_the_url(front: TlsFront, redis_url: str) -> None:
    """Cache and broker reach the real Redis with the same URL."""
    password = urlsplit(redis_url).password
    url = broker(f"rediss://:{password}@localhost:{front.port}/0?ssl_ca_certs={front.ca_bundle}")

    with connect(url) as client:
        assert client.ping()
        sender = TaskSender(url)
        sender.request_refresh(ANN, min_ttl=None, rejected=None)
        sender.close()
        assert client.llen("ondemand") == 1


@pytest.mark.parametrize("form", ["required", "CERT_REQUIRED"])
def test_both_forms_of_the_verification_are_accepted(front: TlsFront, redis_url: str, form: str) -> None:
    """redis-py accepts the first form, and Celery's documentation names the second."""
    password = urlsplit(redis_url).password
    query = f"ssl_ca_certs={front.ca_bundle}&ssl_cert_reqs={form}"

    with connect(broker(f"rediss://:{password}@localhost:{front.port}/0?{query}")) as client:
        assert client.ping()


@pytest.mark.parametrize(
    "query", ["ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=optional", "ssl_check_hostname=false"]
)
@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_url_that_switches_verification_off_is_refused(
    monkeypatch: pytest.MonkeyPatch, scheme: str, query: str
) -> None:
    monkeypatch.setenv("WORKER_REDIS_URL", "redis://localhost")
    monkeypatch.setenv("WORKER_BROKER_URL", f"{scheme}://:{PASSWORD}@localhost/0?{query}")

    with pytest.raises(ConfigurationError) as refusal:
        load(BrokerSettings)

    assert "WORKER_BROKER_URL must verify the server's certificate" in str(refusal.value)
    assert PASSWORD not in str(refusal.value)
