"""``token-worker exporter`` as an operator starts it: with a role that may only read, and without any key."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
import urllib3

from tests.constants import ANN
from tests.e2e.deployment import BIN, Deployment, inherited
from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.stack.process import Process

_ROLE = "exporter_of_the_test"
_ARGV = [str(BIN / "token-worker"), "exporter", "--port", "0"]
_PLAIN = "text/plain"
_OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True, slots=True)
class Running:
    """An exporter that serves."""

    process: Process
    url: str

    def get(self, path: str, accept: str = _PLAIN) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept}
        return urllib3.request("GET", self.url + path, headers=headers, retries=False, timeout=HANG_LIMIT)

    def text(self, path: str = "/metrics") -> str:
        return self.get(path).data.decode()


@pytest.fixture(name="environment")
def _environment(deployment: Deployment) -> Iterator[dict[str, str]]:
    """Settings without a key or a secret of Microsoft's, and a role that may read neither addresses nor tokens."""
    deployment.sql(f"CREATE ROLE {_ROLE} LOGIN PASSWORD 'x'")
    [(columns,)] = deployment.sql(
        "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
        " WHERE table_name = 'mail_credentials' AND NOT column_name = ANY(%s)",
        ["email", "access_token", "refresh_token"],
    )
    deployment.sql(f"GRANT SELECT ({columns}) ON mail_credentials TO {_ROLE}")
    deployment.sql(
        f"GRANT SELECT ON oauth_clients, refresh_events, refresh_successes, refresh_events_id_seq TO {_ROLE}"
    )
    url = urllib3.util.parse_url(deployment.environment["WORKER_DATABASE_URL"])
    yield {
        "WORKER_DATABASE_URL": str(url._replace(auth=f"{_ROLE}:x")),
        "WORKER_REDIS_URL": deployment.environment["WORKER_REDIS_URL"],
    }
    deployment.sql(f"DROP OWNED BY {_ROLE}")
    deployment.sql(f"DROP ROLE {_ROLE}")


@contextmanager
def _running(deployment: Deployment, environment: dict[str, str]) -> Iterator[Running]:
    process = Process(_ARGV, log=deployment.directory / "exporter.log", environment=environment)
    with ExitStack() as cleanup:
        cleanup.callback(process.kill)
        wait_for(lambda: "Metrics: " in process.output(), about="the exporter to listen", processes=[process])
        yield Running(process, process.output().split("Metrics: ")[1].split("/metrics")[0])


@pytest.fixture(name="exporter")
def _exporter(deployment: Deployment, environment: dict[str, str]) -> Iterator[Running]:
    with _running(deployment, environment) as running:
        yield running


def test_it_serves_the_state_of_the_fleet(deployment: Deployment, environment: dict[str, str]) -> None:
    deployment.add_due_accounts(ANN)
    with _running(deployment, environment) as exporter:
        wait_for(lambda: "token_worker_accounts{" in exporter.text(), about="a count of all accounts")
        page, url = exporter.text(), exporter.url

    assert 'token_worker_accounts{client="default",status="active"} 1.0' in page
    assert "token_worker_expired_accounts 1.0" in page
    assert ANN not in page
    assert url.startswith("http://127.0.0.1:")


def test_its_pages(exporter: Running) -> None:
    pages = {path: exporter.get(path) for path in ("/healthz", "/readyz", "/")}

    assert {path: page.status for path, page in pages.items()} == {"/healthz": 200, "/readyz": 200, "/": 404}
    assert exporter.get("/metrics").headers["Content-Type"].startswith(_PLAIN)
    assert exporter.get("/metrics", _OPEN_METRICS).data.endswith(b"# EOF\n")


def test_it_is_not_ready_without_a_store(deployment: Deployment, environment: dict[str, str]) -> None:
    """It goes on serving what it knows."""
    with _running(deployment, environment | {"WORKER_DATABASE_URL": "postgresql://user@127.0.0.1:9/none"}) as exporter:
        ready, healthy, metrics = (exporter.get(path) for path in ("/readyz", "/healthz", "/metrics"))

    assert (ready.status, ready.data) == (503, b"no answer from postgres\n")
    assert healthy.status == 200
    assert b'store_up{store="postgres"} 0.0' in metrics.data


def test_sigterm_ends_it_in_good_order(exporter: Running) -> None:
    exporter.text()
    exporter.process.stop()

    assert exporter.process.wait(HANG_LIMIT) == 0


def test_a_port_that_is_taken_is_one_sentence(
    deployment: Deployment, environment: dict[str, str], exporter: Running
) -> None:
    port = exporter.url.rpartition(":")[2]
    second = deployment.cli("exporter", "--port", port, **environment)

    assert second.returncode == 4
    assert second.stderr == (
        f"Error: cannot listen on 127.0.0.1, port {port}: Address already in use;"
        " choose others with --host and --port\n"
    )


def test_without_its_extra_it_says_what_to_install() -> None:
    """The library is missing, as in an installation for consumers."""
    program = "import sys; sys.modules['prometheus_client'] = None; from worker.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "exporter"],
        capture_output=True,
        text=True,
        check=False,
        env=inherited(),
        timeout=HANG_LIMIT,
    )

    assert ended.returncode == 4
    assert ended.stderr == ("Error: prometheus-client is not installed: pip install 'token-refresh-worker[exporter]'\n")
