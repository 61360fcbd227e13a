"""One Dovecot for all tests, and a new emulator for each. Clocks are real, because mail sessions depend on them."""

import asyncio
import ssl
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from email.message import Message
from pathlib import Path

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler

from tests.integration.mail.dovecot import Dovecot, installed
from tests.integration.mail.office import Office
from tests.integration.mail.sources import ServiceSource
from worker.bootstrap import Services
from worker.clock import utcnow
from worker.devkit.emulator import Emulator, EmulatorServer
from worker.devkit.stack import StackError
from worker.settings import Settings


class Sink(MessageHandler):
    """Accepts every message that is relayed."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []

    def handle_message(self, message: Message) -> None:
        self.messages.append(message)


class Relay(Controller):
    """Listens on a port of the kernel's choice, which no other process can have taken, and reads it before the
    self-test."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@pytest.fixture(name="clock")
def _clock() -> Callable[[], datetime]:
    return utcnow


@pytest.fixture(name="settings")
def _settings(settings: Settings) -> Settings:
    """Dovecot may receive tokens."""
    return settings.model_copy(update={"mail_hosts": "localhost"})


@pytest.fixture(name="emulator")
def _emulator() -> Emulator:
    return Emulator()


@pytest.fixture(name="server")
def _server(shared_server: EmulatorServer) -> EmulatorServer:
    return shared_server


@pytest.fixture(scope="session", name="running_sink")
def _running_sink() -> Iterator[tuple[Sink, int]]:
    sink = Sink()
    controller = Relay(sink, hostname="127.0.0.1", port=0, ready_timeout=60)
    controller.start()
    yield sink, controller.port
    controller.stop()


@pytest.fixture(name="sink")
def _sink(running_sink: tuple[Sink, int]) -> Sink:
    running_sink[0].messages.clear()
    return running_sink[0]


@pytest.fixture(scope="session", name="dovecot")
def _dovecot(relay_server: EmulatorServer, running_sink: tuple[Sink, int]) -> Iterator[Dovecot]:
    if not installed():
        pytest.skip("Dovecot is not installed: apt-get install dovecot-imapd dovecot-pop3d dovecot-submissiond")
    with tempfile.TemporaryDirectory(prefix="dovecot-", ignore_cleanup_errors=True) as directory:
        dovecot = Dovecot(
            Path(directory), f"localhost:{relay_server.port}", relay_server.ca_bundle, relay=running_sink[1]
        )
        try:
            dovecot.start()
        except StackError as error:
            pytest.skip(f"Dovecot cannot be run here: {error}")
        yield dovecot
        dovecot.stop()


@pytest.fixture(scope="session", name="authority")
def _authority() -> trustme.CA:
    """The certificate authority of the servers that follow a script."""
    return trustme.CA()


@pytest.fixture(scope="session", name="script_tls")
def _script_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session", name="script_trust")
def _script_trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(name="trust")
def _trust(dovecot: Dovecot) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=dovecot.ca_bundle)


@pytest.fixture(name="source")
def _source(settings: Settings) -> Iterator[ServiceSource]:
    with ServiceSource(settings.model_copy(update={"mail_hosts": "localhost"})) as client:
        yield client


@pytest.fixture(name="office")
def _office(services: Services, emulator: Emulator, dovecot: Dovecot) -> Office:
    return Office(services, emulator, dovecot)
