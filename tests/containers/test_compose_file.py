"""The compose file runs: it refreshes accounts, and every service comes back after a crash or a pause."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.containers.project import IMAGE, Compose, random_password, run
from tests.waiting import wait_for

ACCOUNTS = 50
LIFETIME = 60  # seconds of the emulator's access tokens, so that each account is due again within the tests

_ADMIN = """
import json, ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/run/emulator/emulator-ca.pem")
path, body = sys.argv[1], sys.argv[2].encode()
request = urllib.request.Request("https://localhost:8443/_emulator/" + path, body, method="POST")
print(urllib.request.urlopen(request, context=context).read().decode())
"""


class Fleet:
    """The development profile: the stores, the emulator, a worker and beat."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose

    def admin(self, path: str, **body: Any) -> Any:
        """A call of the emulator's admin API, which listens inside its container only."""
        return json.loads(self.compose.execute("dev-worker", "python", "-c", _ADMIN, path, json.dumps(body)))

    def add_accounts(self, count: int) -> None:
        lines = [
            {
                "email": email,
                "refresh_token": self.admin("accounts", email=email, access_token_lifetime=LIFETIME)["refresh_token"],
            }
            for email in (f"user{number:02}@contoso.test" for number in range(count))
        ]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        self.compose.execute("dev-worker", "token-worker", "import", "-", stdin=text)

    def status(self) -> Any:
        return self.compose.json("dev-worker", "token-worker", "status", "--json")

    def wait_for_refreshes(self) -> None:
        """Wait until each account has been refreshed after now, by the schedule."""
        (now,) = self.compose.execute("dev-worker", "date", "-u", "+%FT%T+00:00").split()
        wait_for(lambda: self._oldest_refresh() > now, about="a refresh of each account")

    def _oldest_refresh(self) -> str:
        lines = self.compose.execute("dev-worker", "token-worker", "list", "--json").splitlines()
        assert len(lines) == ACCOUNTS
        return min(json.loads(line)["last_refreshed_at"] or "" for line in lines)


def make_secrets(directory: Path) -> None:
    """As the header of the compose file says."""
    secrets = directory / "secrets"
    secrets.mkdir()
    values = {
        "POSTGRES_PASSWORD": random_password(),
        "OWNER_DATABASE_URL": f"postgresql://token_worker_owner:{random_password()}@postgres:5432/worker",
        "WORKER_DATABASE_URL": f"postgresql://token_worker:{random_password()}@postgres:5432/worker",
        "WORKER_REDIS_URL": f"redis://worker:{random_password()}@valkey:6379/0",
        "BEAT_REDIS_URL": f"redis://beat:{random_password()}@valkey:6379/0",
        "EXPORTER_DATABASE_URL": f"postgresql://token_worker_exporter:{random_password()}@postgres:5432/worker",
        "EXPORTER_REDIS_URL": f"redis://exporter:{random_password()}@valkey:6379/0",
        "FLOWER_REDIS_URL": f"redis://flower:{random_password()}@valkey:6379/0",
        "FLOWER_BASIC_AUTH": "flower:correct-horse",
        "WORKER_ENCRYPTION_KEYS": run("docker", "run", "--rm", IMAGE, "token-worker", "keygen").strip(),
        "WORKER_CLIENT_ID": "5d1b1a7e-0c4b-4a5e-9a55-3f6f2c9d7e10",
        "WORKER_CLIENT_SECRET": "no-secret-of-microsoft",
    }
    for name, value in values.items():
        (secrets / name).write_text(f"{value}\n")
        (secrets / name).chmod(0o444)
    directory.chmod(0o755)


@pytest.fixture(scope="module", name="fleet")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("dev")
    make_secrets(directory)
    compose = Compose(directory, "token-worker-containers-dev", "dev")
    try:
        compose.start("dev-worker", "beat")
        fleet = Fleet(compose)
        fleet.add_accounts(ACCOUNTS)
        yield fleet
    finally:
        compose("down", "--volumes", "--timeout", "5")


def test_each_account_is_refreshed(fleet: Fleet) -> None:
    """By the schedule, with the emulator in the place of Microsoft."""
    fleet.wait_for_refreshes()
    fleet.wait_for_refreshes()

    assert fleet.status()["accounts"] == {"active": ACCOUNTS}


@pytest.mark.parametrize("service", ["dev-worker", "beat", "valkey", "postgres"])
def test_a_service_that_is_killed_comes_back(fleet: Fleet, service: str) -> None:
    """The others wait for it, and no account is lost."""
    fleet.compose.kill(service)

    fleet.compose.wait_until_healthy(service)
    fleet.wait_for_refreshes()
    assert fleet.status()["accounts"] == {"active": ACCOUNTS}


@pytest.mark.parametrize("service", ["dev-worker", "beat", "valkey", "postgres", "emulator"])
def test_a_service_that_hangs_for_a_while_costs_no_account(fleet: Fleet, service: str) -> None:
    """As on a machine that swaps, or during a snapshot of its disk."""
    fleet.compose("pause", service)
    run("sleep", "15")
    fleet.compose("unpause", service)

    fleet.wait_for_refreshes()
    assert fleet.status()["accounts"] == {"active": ACCOUNTS}


def test_a_worker_stops_with_a_request_under_way(fleet: Fleet) -> None:
    """It exits by itself, well before Docker would kill it, and the account is refreshed after the next start."""
    fleet.admin("faults", fault="hang", seconds=20, after=True, email="user00@contoso.test", times=1)
    wait_for(lambda: fleet.status()["in_flight"] > 0, about="a request under way")

    fleet.compose("stop", "dev-worker")

    assert fleet.compose.inspect("dev-worker")["State"]["ExitCode"] == 0
    fleet.compose.start("dev-worker")
    fleet.wait_for_refreshes()
    assert fleet.status()["accounts"] == {"active": ACCOUNTS}


@pytest.mark.parametrize("service", ["dev-worker", "beat", "valkey", "postgres", "emulator"])
def test_a_process_has_no_privilege(fleet: Fleet, service: str) -> None:
    """Seen from inside: no root, no capability, no way to gain one, system calls filtered, files of the image fixed."""
    lines = fleet.compose.execute(service, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    assert status["Uid"].split()[0] != "0"
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "read-only" in fleet.compose.execute(service, "sh", "-c", "touch /usr/x 2>&1 || true").lower()


def test_production_starts_and_flower_asks_for_its_password(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All services are healthy without Microsoft, which is unreachable here."""
    directory = tmp_path_factory.mktemp("production")
    make_secrets(directory)
    compose = Compose(directory, "token-worker-containers")
    http = urllib3.PoolManager(retries=False)
    login = urllib3.make_headers(basic_auth="flower:correct-horse")
    try:
        compose.start()

        assert http.request("GET", "http://127.0.0.1:5555/").status == 401
        assert http.request("GET", "http://127.0.0.1:5555/", headers=login).status == 200
        assert compose.json("worker", "token-worker", "status", "--json")["accounts"] == {}
        compose("stop")
        services = compose("ps", "--all", "--services").split()
        assert {name: compose.inspect(name)["State"]["ExitCode"] for name in services} == dict.fromkeys(services, 0)
    finally:
        compose("down", "--volumes", "--timeout", "5")
