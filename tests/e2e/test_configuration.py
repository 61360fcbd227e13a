"""A wrong setting, command or store gets one sentence and an exit code, never a traceback."""

import json
import re
import subprocess
from contextlib import closing

import pytest

from tests.connect_proxy import REFUSAL, ConnectProxy
from tests.constants import ANN
from tests.e2e.deployment import BIN, Deployment
from worker.cache import connect
from worker.devkit.emulator import fault_named
from worker.domain.account import account_id
from worker.vault import generate_key

CELERY = [str(BIN / "celery"), "-A", "worker"]
TOKEN_WORKER = [str(BIN / "token-worker")]
COMMANDS = {
    "list": [*TOKEN_WORKER, "list"],
    "doctor": [*TOKEN_WORKER, "doctor"],
    "migrate": [*TOKEN_WORKER, "migrate"],
    "token": [*TOKEN_WORKER, "token", ANN],
    "worker": [*CELERY, "worker"],
    "beat": [*CELERY, "beat"],
}


def check_sentence(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """There is one line with the words on standard error, nothing on standard output, and the exit code."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("command", "setting", "value"),
    [
        ("list", "WORKER_DATABASE_URL", None),
        ("list", "WORKER_ENCRYPTION_KEYS", "k1:too-short"),
        ("doctor", "WORKER_CA_BUNDLE", "/nowhere/ca.pem"),
        ("migrate", "WORKER_DATABASE_URL", "mysql://app:hunter2@127.0.0.1/app"),
        ("token", "WORKER_CLIENT_SECRET", None),
        ("token", "WORKER_AUTHORITY", "http://login.contoso.com/common"),
        ("worker", "WORKER_ENCRYPTION_KEYS", None),
        ("worker", "WORKER_REDIS_URL", None),
        ("worker", "WORKER_CLIENT_ID", None),
        ("beat", "WORKER_REDIS_URL", "localhost:hunter2"),
        ("beat", "WORKER_SWEEP_INTERVAL", "often"),
    ],
)
def test_a_wrong_setting_costs_one_sentence(
    deployment: Deployment, command: str, setting: str, value: str | None
) -> None:
    """The exit code is 4. The sentence names the setting but not its value, which may contain a password."""
    del deployment.environment[setting]
    if value is not None:
        deployment.environment[setting] = value

    done = deployment.run(COMMANDS[command])

    check_sentence(done, 4, setting)
    assert "hunter2" not in done.stderr
    assert "too-short" not in done.stderr


def test_a_misspelt_setting_is_found_by_the_doctor(deployment: Deployment) -> None:
    """Otherwise an operator may overlook for months that a variable has no effect."""
    done = deployment.cli("doctor", WORKER_SWEEP_INTERVALL="1")

    assert done.returncode == 1
    assert "FAIL  settings: not a setting: WORKER_SWEEP_INTERVALL" in done.stdout
    assert done.stderr == ""


def test_the_exit_code_names_the_actor(deployment: Deployment) -> None:
    """2 means a wrong command, 1 a missing account, and 3 that the mailbox's user must act."""
    deployment.add_due_accounts(ANN)
    deployment.emulator.add_fault(fault_named("50173"), ANN)

    assert deployment.cli("token").returncode == 2
    assert deployment.cli("no-such-command").returncode == 2
    assert deployment.cli("token", ANN, "--min-ttl", "soon").returncode == 2
    check_sentence(deployment.cli("token", "not an address"), 2, "not an e-mail address")
    check_sentence(deployment.cli("token", "bob@contoso.com"), 1, "bob@contoso.com", "no such account")
    check_sentence(deployment.cli("token", ANN), 3, ANN, "sign in again", "AADSTS50173")


def test_commands_say_that_postgres_is_down(deployment: Deployment) -> None:
    """No server listens on the port."""
    down = {"WORKER_DATABASE_URL": "postgresql://app:hunter2@127.0.0.1:1/app"}

    for command in (["list"], ["token", ANN], ["migrate"]):
        done = deployment.cli(*command, **down)
        check_sentence(done, 1, "the database cannot be used")
        assert "hunter2" not in done.stderr
    doctor = deployment.cli("doctor", **down)
    assert doctor.returncode == 1
    assert doctor.stderr == ""
    assert "FAIL  postgres: the database cannot be used" in doctor.stdout
    assert "ok    redis" in doctor.stdout


def test_commands_go_on_while_redis_is_down(deployment: Deployment) -> None:
    """`doctor` reports that Redis is down, and the token comes from Postgres."""
    down = {"WORKER_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    deployment.add_due_accounts(ANN)

    doctor = deployment.cli("doctor", **down)
    token = deployment.cli("token", ANN, **down)

    assert doctor.returncode == 1
    assert doctor.stderr == ""
    assert "FAIL  redis: cannot be used: ConnectionError: no server listens there" in doctor.stdout
    assert "ok    postgres" in doctor.stdout
    assert (token.returncode, token.stderr) == (0, "")
    assert token.stdout.startswith("eyJ")
    assert "hunter2" not in doctor.stdout


def test_tokens_sealed_under_a_lost_key_cost_one_sentence(deployment: Deployment) -> None:
    """The key is missing from the settings. The error names the account, whose tokens stay as they are."""
    deployment.add_due_accounts(ANN)
    before = deployment.sql("SELECT refresh_token FROM mail_credentials")

    done = deployment.cli("token", ANN, WORKER_ENCRYPTION_KEYS=generate_key("k2"))

    check_sentence(done, 1, ANN)
    assert deployment.sql("SELECT refresh_token FROM mail_credentials") == before


def test_a_database_without_tables_is_diagnosed(deployment: Deployment) -> None:
    """The most frequent mistake of a first deployment is that `migrate` was never run."""
    deployment.sql("DROP SCHEMA public CASCADE")
    deployment.sql("CREATE SCHEMA public")

    doctor = deployment.cli("doctor")

    assert doctor.returncode == 1
    assert "Run: token-worker migrate" in doctor.stdout
    check_sentence(deployment.cli("list"), 4, "migrate")
    assert deployment.cli("migrate").stdout.startswith("migrated: ")
    assert deployment.cli("migrate").stdout == "already up to date\n"
    assert "ok    tables" in deployment.cli("doctor").stdout


def test_a_refused_secret_is_diagnosed(deployment: Deployment) -> None:
    """`doctor` tries this machine's secret. It also reports the errors of other processes' refreshes."""
    emails = [f"user{number}@contoso.com" for number in range(3)]
    deployment.add_due_accounts(*emails)
    for email in emails:
        deployment.cli("refresh", email, WORKER_CLIENT_SECRET="another")

    doctor = deployment.cli("doctor")

    assert doctor.returncode == 1
    assert "FAIL  app registration default: refreshes meet misconfigured (AADSTS7000215)" in doctor.stdout


def test_status_counts_the_results_in_the_outbox(deployment: Deployment) -> None:
    """While Redis is down, it prints all other counts."""
    with closing(connect(deployment.environment["WORKER_REDIS_URL"])) as redis:
        redis.hset("token-worker:outbox", str(account_id(ANN)), "{}")

    status = json.loads(deployment.cli("status", "--json").stdout)
    alone = json.loads(deployment.cli("status", "--json", WORKER_REDIS_URL="redis://127.0.0.1:1/0").stdout)

    assert status["in_outbox"] == 1
    assert alone["in_outbox"] is None
    assert set(alone["unavailable"]) == {"Redis", "the broker"}
    assert alone["accounts"] == status["accounts"]


def test_a_program_that_is_rolled_back_starts(deployment: Deployment) -> None:
    """`migrate` may run before every start, so it must accept a newer schema."""
    [(version,)] = deployment.sql("SELECT version_num FROM alembic_version")
    deployment.sql("UPDATE alembic_version SET version_num = '29990101_0000'")
    try:
        done = deployment.cli("migrate")
        assert (done.returncode, "newer than this program" in done.stdout) == (0, True)
        assert "ok    tables" in deployment.cli("doctor").stdout
    finally:  # other tests use the same database
        deployment.sql(f"UPDATE alembic_version SET version_num = '{version}'")


@pytest.mark.parametrize(
    "command",
    [
        ("list", "--since", "99999d"),
        ("list", "--since", "999999d"),
        ("list", "--expiring", "1e12"),
        ("list", "--expiring", "nan"),
        ("token", ANN, "--min-ttl", "1e20"),
        ("token", ANN, "--min-ttl", "inf"),
        ("simulate", "--rate", "inf"),
        ("simulate", "--rate", "nan"),
    ],
    ids=" ".join,
)
def test_a_number_without_meaning_is_a_mistake_of_usage(deployment: Deployment, command: tuple[str, ...]) -> None:
    """`nan` is between all bounds, and Python's own spans of time have an end."""
    done = deployment.cli(*command)

    assert done.returncode in {0, 2}
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == (command == ("list", "--since", "99999d"))


def test_the_doctor_asks_microsoft_through_the_proxy(deployment: Deployment) -> None:
    """Workers do. On another way it would find well what they cannot reach, or the other way round."""
    with ConnectProxy(answer=REFUSAL) as proxy:
        refused = deployment.cli("doctor", WORKER_PROXY=proxy.url)
    with ConnectProxy() as proxy:
        passed = deployment.cli("doctor", WORKER_PROXY=proxy.url)

    assert re.search(r"FAIL  app registration default: .*proxy_refused", refused.stdout)
    assert "ok    app registration default" in passed.stdout
