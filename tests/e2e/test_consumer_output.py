"""A consumer's process prints only the log lines that the application has configured, and never a key."""

import re
import sys

import pytest
import trustme

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from worker.devkit.emulator import DEFAULT_CLIENT_ID

_READ = """
client = TokenClient.from_env()
{meanwhile}
with client:
    try:
        client.get("ann@contoso.com")
    except WorkerError as error:
        assert error.code == "backing_off", error
"""
_IMPORTS = "import logging, os, structlog\nfrom worker.client import TokenClient, WorkerError\n"
_CERTIFICATE = "WORKER_CLIENTS__FABRIKAM__CLIENT_CERTIFICATE"
# MSAL signs with this function. It fails, as in another version of the library, and its frame holds the key.
_BROKEN = """
import jwt
def broken(payload, key, **options):
    raise RuntimeError("unexpected")
jwt.encode = broken
"""
_WITH_TEXT = 'logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")\n'
_STRUCTLOG = """
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
"""


@pytest.fixture(name="key")
def _key(deployment: Deployment) -> str:
    """The private key of the app registration, as one piece of base64."""
    directory = deployment.directory
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    pem = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
    (directory / "client.pem").write_bytes(pem)
    deployment.environment |= {
        "WORKER_CLIENTS__FABRIKAM__CLIENT_ID": DEFAULT_CLIENT_ID,
        "WORKER_CLIENTS__FABRIKAM__AUTHORITY": deployment.server.authority,
        _CERTIFICATE: str(directory / "client.pem"),
    }
    deployment.add_due_accounts(ANN, client="fabrikam")
    return pem.decode().partition("-----END")[0].partition("KEY-----")[2].replace("\n", "")


def _output(deployment: Deployment, script: str, *, meanwhile: str = "") -> tuple[str, str]:
    """The standard output and the standard error of the process."""
    done = deployment.run([sys.executable, "-c", _IMPORTS + script + _READ.format(meanwhile=meanwhile)])
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _shows(text: str, key: str) -> bool:
    """Whether the text contains a part of the key that is too long for a coincidence."""
    plain = re.sub(r"[^A-Za-z0-9+/]", "", text.replace("\\n", ""))
    return any(key[at : at + 12] in plain for at in range(len(key) - 12))


def test_a_consumer_without_logging_prints_nothing(deployment: Deployment) -> None:
    """Its standard output is the application's."""
    deployment.add_due_accounts(ANN)

    assert _output(deployment, "") == ("", "")


def test_its_lines_go_to_the_standard_librarys_logging(deployment: Deployment) -> None:
    """The application handles them like those of any other library."""
    deployment.add_due_accounts(ANN)

    printed, logged = _output(deployment, _WITH_TEXT)

    assert printed == ""
    assert re.search(rf"^INFO worker\.\S+: Token persisted to database .*email={ANN}", logged, re.MULTILINE)


@pytest.mark.parametrize("setup", ["", _WITH_TEXT], ids=["nothing", "logging"])
def test_an_unexpected_failure_shows_no_key(deployment: Deployment, key: str, setup: str) -> None:
    """The frames it went through hold the private key."""
    printed, logged = _output(deployment, setup, meanwhile=_BROKEN)

    assert printed == ""
    assert "Refresh failed unexpectedly" in logged
    assert "Traceback (most recent call last)" in logged
    assert not _shows(logged, key)


def test_an_application_keeps_its_own_structlog(deployment: Deployment, key: str) -> None:
    """Its structlog gets the traceback as text, from which no renderer can get local variables."""
    printed, logged = _output(deployment, _STRUCTLOG, meanwhile=_BROKEN)

    assert '"event": "Refresh failed unexpectedly"' in printed
    assert "Traceback (most recent call last)" in printed
    assert not _shows(printed + logged, key)


def test_an_application_that_prints_local_variables_prints_no_key(deployment: Deployment, key: str) -> None:
    """structlog's default prints them if rich is installed."""
    default = "structlog.configure(processors=structlog.get_config()['processors'])\n"

    printed, logged = _output(deployment, default, meanwhile=_BROKEN)

    assert "Refresh failed unexpectedly" in printed
    assert not _shows(printed + logged, key)
