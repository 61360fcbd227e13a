"""The blocks of docs/cookbook.md, type-checked and run."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import msal
import pytest
import urllib3

from tests.integration.mail.conftest import Sink
from tests.integration.mail.office import ANN, HOUR, Office
from tests.integration.mail.recipes import COOKBOOK, module, recipes, write
from tests.integration.mail.sources import LOCAL, ServiceSource
from worker.bootstrap import Services
from worker.client import TokenClient
from worker.clock import utcnow
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator, EmulatorServer
from worker.domain.errors import NeedsUser, WorkerError
from worker.mail import MailUnavailable, open_imap
from worker.settings import Settings

ROOT = COOKBOOK.parents[1]


@pytest.fixture(autouse=True)
def _trusting(server: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """MSAL's HTTP client takes its certificate authorities from the environment."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_bundle))


@pytest.fixture(name="client")
def _client(settings: Settings) -> Iterator[TokenClient]:
    with TokenClient(settings) as client:
        yield client


def errors(kind: type[WorkerError]) -> Iterator[type[WorkerError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from errors(narrower)


@pytest.mark.timeout(300)
def test_every_block_is_a_module_that_type_checks(tmp_path: Path) -> None:
    assert len(recipes()) == COOKBOOK.read_text().count("```python")
    configuration = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", configuration, *map(str, write(tmp_path))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_code_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \| `\w+` \|", COOKBOOK.read_text(), re.MULTILINE))
    raised = {kind.code for kind in errors(WorkerError) if kind.__module__.startswith("worker.")}
    assert raised - explained == {"failed", "account"}  # base classes that are never raised themselves


def test_a_user_gets_a_sentence_if_only_a_user_can_act() -> None:
    tell = module("tell").tell
    assert tell(NeedsUser(ANN, "AADSTS50173")) == "Please sign in again."
    assert tell(MailUnavailable("outlook.office365.com", "busy")) is None


@contextmanager
def page(server: EmulatorServer, client: TokenClient) -> Iterator[Any]:
    """A browser at the sign-in page of a product."""
    signin = module("signin")
    registration = signin.microsoft(
        DEFAULT_CLIENT_ID,
        DEFAULT_CLIENT_SECRET,
        server.authority,
        instance_discovery=False,
        verify=str(server.ca_bundle),
    )
    with signin.create_app(client, registration, "secret").test_client() as browser:
        yield browser
    registration.http_client.close()


def sent_back(server: EmulatorServer, url: str) -> str:
    """The address to which Microsoft sends the browser after the sign-in."""
    with urllib3.PoolManager(ssl_context=create_default_context(cafile=server.ca_bundle)) as http:
        answer = http.request("GET", url, redirect=False)
    back = urlsplit(answer.headers["location"])
    return f"{back.path}?{back.query}"


def is_kept_fresh(services: Services, emulator: Emulator) -> bool:
    """Whether one refresh of the stored grant leads to a token that lives for an hour."""
    emulator.enrol(ANN, access_token_lifetime=HOUR)
    token = services.tokens.get(ANN)
    refreshes = emulator.statistics().by_account[ANN].refreshes
    return refreshes == 1 and token.ttl(utcnow()) > timedelta(minutes=59)


def test_a_user_signs_in_and_the_mailbox_is_kept_fresh(
    server: EmulatorServer, services: Services, emulator: Emulator, client: TokenClient
) -> None:
    emulator.enrol(ANN, access_token_lifetime=timedelta(0))
    with page(server, client) as browser:
        redirect = browser.get("/connect", query_string={"email": ANN})
        landed = browser.get(sent_back(server, redirect.location))
    assert (landed.status_code, landed.text) == (200, "The mailbox is connected.")
    assert is_kept_fresh(services, emulator)


def test_the_callback_of_another_user_is_rejected(
    server: EmulatorServer, services: Services, client: TokenClient
) -> None:
    with page(server, client) as browser:
        theirs = sent_back(server, browser.get("/connect", query_string={"email": "eve@contoso.com"}).location)
    with page(server, client) as browser:
        browser.get("/connect", query_string={"email": ANN})
        assert browser.get(theirs).status_code == 400
    assert list(services.accounts.list()) == []


def test_a_user_who_declines_sees_why(server: EmulatorServer, services: Services, client: TokenClient) -> None:
    with page(server, client) as browser:
        redirect = browser.get("/connect", query_string={"email": ANN}).location
        [state] = parse_qs(urlsplit(redirect).query)["state"]
        answer = browser.get("/connected", query_string={"error": "access_denied", "state": state})
    assert (answer.status_code, "access_denied" in answer.text) == (400, True)


def test_a_user_signs_in_by_device_code(
    server: EmulatorServer, services: Services, emulator: Emulator, client: TokenClient
) -> None:
    public = msal.PublicClientApplication(DEFAULT_CLIENT_ID, authority=server.authority, instance_discovery=False)

    emulator.enrol(ANN, access_token_lifetime=timedelta(minutes=1))

    def show(message: str) -> None:
        emulator.approve_device(message.removesuffix(".").rpartition(" ")[2], ANN)

    assert module("device").sign_in(client, public, show) == ANN
    public.http_client.close()
    assert is_kept_fresh(services, emulator)


def test_a_message_is_sent_and_an_inbox_listed(
    office: Office, source: ServiceSource, trust: SSLContext, sink: Sink
) -> None:
    mailbox = f"ann.{uuid4().hex}@contoso.com"
    office.sign_in(mailbox)
    recipe = module("mail")
    assert recipe.inbox(source, mailbox, ssl_context=trust, mail_hosts=LOCAL) == []
    deliver(source, mailbox, trust, "Lunch?")
    deliver(source, mailbox, trust, "Dinner?")
    assert recipe.inbox(source, mailbox, ssl_context=trust, mail_hosts=LOCAL) == [
        b"Subject: Lunch?",
        b"Subject: Dinner?",
    ]
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = mailbox, "bob@fabrikam.com", "Lunch?"
    recipe.send(source, message, ssl_context=trust, mail_hosts=LOCAL)
    assert [sent["Subject"] for sent in sink.messages] == ["Lunch?"]


def deliver(source: ServiceSource, mailbox: str, trust: SSLContext, subject: str) -> None:
    with open_imap(source, mailbox, min_ttl=900, ssl_context=trust, mail_hosts=LOCAL) as imap:
        imap.append("INBOX", "", "", f"Subject: {subject}\r\n\r\n".encode())


@contextmanager
def watching(source: ServiceSource, mailbox: str, trust: SSLContext) -> Iterator[Callable[..., bool]]:
    """The watcher at work. The result says within a minute whether its last counts of messages were these."""
    watch, stop, seen = module("watch"), threading.Event(), threading.Condition()
    counts = [-1]

    def look(imap: Any) -> None:
        with seen:
            counts.append(len(imap.search("ALL")))
            seen.notify_all()

    def has_seen(*messages: int) -> bool:
        with seen:
            return seen.wait_for(lambda: counts[-len(messages) :] == [*messages], timeout=60)

    watch.__dict__["LOOK"] = 0.5
    options = {"ssl_context": trust, "mail_hosts": LOCAL, "pause": 0.1}
    thread = threading.Thread(target=watch.watch, args=(source, mailbox, look, stop), kwargs=options)
    thread.start()
    try:
        yield has_seen
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_a_watcher_changes_to_the_next_token(office: Office, source: ServiceSource, trust: SSLContext) -> None:
    mailbox = f"ann.{uuid4().hex}@contoso.com"
    # The server accepts the first token for an hour, so the login may be slow. The next tokens leave seconds for it.
    office.sign_in(mailbox, believed=timedelta(seconds=5), later=timedelta(seconds=8))
    with watching(source, mailbox, trust) as has_seen:
        assert has_seen(0)
        assert has_seen(0, 0)  # it counts again after it has reconnected
        assert office.refreshes(mailbox) >= 1
        deliver(source, mailbox, trust, "Lunch?")
        assert has_seen(1)
    assert source.reported == []


def test_a_watcher_that_is_disconnected_reconnects(office: Office, source: ServiceSource, trust: SSLContext) -> None:
    mailbox = f"ann.{uuid4().hex}@contoso.com"
    office.sign_in(mailbox)
    with watching(source, mailbox, trust) as has_seen:
        assert has_seen(0)
        office.dovecot.kick(mailbox)
        deliver(source, mailbox, trust, "Lunch?")
        assert has_seen(1)
