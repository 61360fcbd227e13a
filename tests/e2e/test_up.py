"""``token-worker up`` starts a system for development that keeps its data."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from tests.e2e.deployment import BIN, inherited
from tests.e2e.foreground import Foreground, foreground
from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.demo import MAILBOXES
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, EmulatorServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

UP = ("up", "--data", "data")
GUEST = "guest@contoso.test"
CONFIGURATION_ERROR = 4  # exit code
ACCESS_TOKEN = "an-access-token-of-another-provider"


def test_the_data_of_a_killed_run_is_used_by_the_next(directory: Path) -> None:
    """Accounts, versions and keys persist, even without a clean-up. The second run ends by Ctrl-C."""
    with foreground(directory, *UP) as first:
        first.until_printed("Stop with Ctrl-C.")
        _shell(first, "token-worker import -", stdin=_exported())
        _shell(first, f"token-worker pause {GUEST}")
        versions = _versions(first)
        first.kill()
        first.end()

        with foreground(directory, *UP) as second:
            second.until_printed("Stop with Ctrl-C.")
            signed_in_again = {email: version + (email != GUEST) for email, version in versions.items()}
            assert _versions(second) == signed_in_again
            with redis.Redis.from_url(_shell(second, "printenv WORKER_REDIS_URL").strip()) as client:
                client.flushall()
            assert _shell(second, f"token-worker token {GUEST}") == f"{ACCESS_TOKEN}\n", "from Postgres, by the old key"
            second.ctrl_c()

            assert second.end() == 0
            assert second.stdout().endswith("Stopped.\n")
            assert second.errors() == ""
            assert list(second.temporary.iterdir()) == []
            wait_for(lambda: not second.family(), about="all processes to end")


def test_another_shell_can_use_the_system_and_a_second_up_is_refused(directory: Path) -> None:
    """`up` prints a line to copy into the shell. A second `up` gets one sentence, and the first one goes on."""
    with foreground(directory, *UP) as owner:
        owner.until_printed("Stop with Ctrl-C.")
        printed = re.search(r"^In another shell: (.*)$", owner.stdout(), re.MULTILINE)
        assert printed
        listed = [line.split("\t") for line in _run(printed[1]).splitlines()]
        assert [line[1] for line in listed] == ["active"] * MAILBOXES

        with foreground(directory, *UP) as intruder:
            assert intruder.end() == 1
            sentence = r"Error: \S+/data\S* is in use by process \d+: stop it or choose another directory\.\n"
            assert re.fullmatch(sentence, intruder.errors())

        assert owner.alive()
        assert "refreshed" in _shell(owner, f"token-worker refresh {listed[0][0]}"), "its emulator is still trusted"
        for private in ("env", "encryption-keys"):
            assert (directory / "data" / private).stat().st_mode & 0o077 == 0


def test_stores_and_an_app_registration_that_are_set_are_used(
    directory: Path, database_url: str, redis_url: str, server: EmulatorServer
) -> None:
    """A developer with a Postgres, a Redis and an app registration gets no embedded servers and no test accounts."""
    environment = {
        "WORKER_DATABASE_URL": database_url,
        "WORKER_REDIS_URL": redis_url,
        "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
        "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
        "WORKER_AUTHORITY": server.authority,
        "WORKER_CA_BUNDLE": str(server.ca_bundle),
    }
    with foreground(directory, *UP, **environment) as up:
        up.until_printed("Stop with Ctrl-C.")

        assert _count(database_url) == 0
        assert not {"postgres", "valkey-server"} & set(up.family().values())
        address = urlsplit(database_url)
        assert re.search(
            rf"^Postgres +\S*:{address.port}{address.path} +\(WORKER_DATABASE_URL\)$", up.stdout(), re.MULTILINE
        )
        assert re.search(r"^Redis +\S*:\d+/0 +\(WORKER_REDIS_URL\)$", up.stdout(), re.MULTILINE)
        assert re.search(rf"^Identity +{server.authority} +\(WORKER_CLIENT_ID\)$", up.stdout(), re.MULTILINE)
        assert str(address.password) not in up.output()


@pytest.mark.parametrize("by_file", [False, True])
def test_real_stores_are_never_used_with_the_emulator(
    directory: Path, database_url: str, redis_url: str, *, by_file: bool
) -> None:
    """The emulator would reject real accounts, and their users would have to sign in again."""
    stores = {"WORKER_DATABASE_URL": database_url, "WORKER_REDIS_URL": redis_url}
    if by_file:
        (directory / "secrets").mkdir()
        for name, value in stores.items():
            (directory / "secrets" / name.lower()).write_text(value)
        stores = {"WORKER_SECRETS_DIR": str(directory / "secrets")}

    with foreground(directory, *UP, **stores) as up:
        assert up.end() == CONFIGURATION_ERROR

        assert len(up.errors().splitlines()) == 1
        assert "WORKER_DATABASE_URL" in up.errors()
        assert "WORKER_CLIENT_ID" in up.errors()
        assert _count(database_url) == 0


def test_embedded_stores_of_real_accounts_are_never_used_with_the_emulator(
    directory: Path, server: EmulatorServer
) -> None:
    """Runs with an app registration and runs with the emulator have different data."""
    registration = {
        "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
        "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
        "WORKER_AUTHORITY": server.authority,
        "WORKER_CA_BUNDLE": str(server.ca_bundle),
    }
    with foreground(directory, *UP, **registration) as real:
        real.until_printed("Stop with Ctrl-C.")
        _shell(real, "token-worker import -", stdin=_exported())
        real.ctrl_c()
        assert real.end() == 0

    with foreground(directory, *UP) as emulated:
        emulated.until_printed("Stop with Ctrl-C.")

        assert GUEST not in _versions(emulated)


@pytest.mark.parametrize("given", ["WORKER_DATABASE_URL", "WORKER_REDIS_URL"])
def test_one_store_without_the_other_is_refused(directory: Path, given: str) -> None:
    """Half a configuration is a mistake. Nothing is started, and the sentence names both settings."""
    with foreground(directory, *UP, **{given: "redis://127.0.0.1:1/0"}) as up:
        assert up.end() == CONFIGURATION_ERROR

        assert len(up.errors().splitlines()) == 1
        assert "WORKER_DATABASE_URL" in up.errors()
        assert "WORKER_REDIS_URL" in up.errors()


def _shell(up: Foreground, command: str, *, stdin: str = "") -> str:
    """The output of a command in a shell that has read the environment file."""
    return _run(f". {up.directory}/data/env && {command}", stdin=stdin)


def _run(line: str, *, stdin: str = "") -> str:
    environment = inherited()
    done = subprocess.run(
        ["sh", "-euc", line],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_LIMIT,
        env={**environment, "PATH": f"{BIN}:{environment['PATH']}"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def _count(database_url: str) -> int:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM mail_credentials").fetchall()
    return int(count)


def _versions(up: Foreground) -> dict[str, int]:
    listed = [json.loads(line) for line in _shell(up, "token-worker list --json").splitlines()]
    return {account["email"]: account["version"] for account in listed}


def _exported() -> str:
    """An account that the emulator does not know, so that the next run does not sign it in again."""
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251
    return json.dumps(
        {
            "email": GUEST,
            "refresh_token": "a-refresh-token",
            "access_token": ACCESS_TOKEN,
            "expires_at": in_an_hour.isoformat(),
        }
    )
