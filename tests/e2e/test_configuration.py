"""A wrong setting, command or store gets one sentence and an exit code, never a traceback."""

import json
import subprocess
from contextlib import closing

import pytest

from tests.e2e.installation import BIN, Installation
from worker.cache import connect
from worker.devkit.emulator import fault_named
from worker.domain.account import account_id
from worker.vault import generate_key

ANN = "ann@contoso.com"
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
    installation: Installation, command: str, setting: str, value: str | None
) -> None:
    """The exit code is 4. The sentence names the setting but not its value, which may contain a password."""
    del installation.environment[setting]
    if value is not None:
        installation.environment[setting] = value

    done = installation.run(COMMANDS[command])

    check_sentence(done, 4, setting)
    assert "hunter2" not in done.stderr
    assert "too-short" not in done.stderr


def test_a_misspelt_setting_is_found_by_the_doctor(installation: Installation) -> None:
    """Otherwise an operator may overlook for months that a variable has no effect."""
    done = installation.cli("doctor", WORKER_SWEEP_INTERVALL="1")

    assert done.returncode == 1
    assert "FAIL  settings: not a setting: WORKER_SWEEP_INTERVALL" in done.stdout
    assert done.stderr == ""


def test_the_exit_code_says_who_has_to_act(installation: Installation) -> None:
    """2 means a wrong command, 1 a missing account, and 3 that the mailbox's user must act."""
    installation.enrol(ANN)
    installation.emulator.add_fault(fault_named("50173"), ANN)

    assert installation.cli("token").returncode == 2
    assert installation.cli("no-such-command").returncode == 2
    assert installation.cli("token", ANN, "--min-ttl", "soon").returncode == 2
    check_sentence(installation.cli("token", "not an address"), 2, "not an e-mail address")
    check_sentence(installation.cli("token", "bob@contoso.com"), 1, "bob@contoso.com", "no such account")
    check_sentence(installation.cli("token", ANN), 3, ANN, "sign in again", "AADSTS50173")


def test_commands_say_that_postgres_is_down(installation: Installation) -> None:
    """No server listens on the port."""
    down = {"WORKER_DATABASE_URL": "postgresql://app:hunter2@127.0.0.1:1/app"}

    for command in (["list"], ["token", ANN], ["migrate"], ["status"]):
        done = installation.cli(*command, **down)
        check_sentence(done, 1, "the database cannot be used")
        assert "hunter2" not in done.stderr
    doctor = installation.cli("doctor", **down)
    assert doctor.returncode == 1
    assert doctor.stderr == ""
    assert "FAIL  postgres: the database cannot be used" in doctor.stdout
    assert "ok    redis" in doctor.stdout


def test_commands_go_on_while_redis_is_down(installation: Installation) -> None:
    """`doctor` reports that Redis is down, and the token comes from Postgres."""
    down = {"WORKER_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    installation.enrol(ANN)

    doctor = installation.cli("doctor", **down)
    token = installation.cli("token", ANN, **down)

    assert doctor.returncode == 1
    assert doctor.stderr == ""
    assert "FAIL  redis: Redis cannot be used" in doctor.stdout
    assert "ok    postgres" in doctor.stdout
    assert (token.returncode, token.stderr) == (0, "")
    assert token.stdout.startswith("eyJ")
    assert "hunter2" not in doctor.stdout


def test_tokens_sealed_under_a_lost_key_cost_one_sentence(installation: Installation) -> None:
    """The key is missing from the settings. The error names the account, whose tokens stay as they are."""
    installation.enrol(ANN)
    before = installation.sql("SELECT refresh_token FROM mail_credentials")

    done = installation.cli("token", ANN, WORKER_ENCRYPTION_KEYS=generate_key("k2"))

    check_sentence(done, 1, ANN)
    assert installation.sql("SELECT refresh_token FROM mail_credentials") == before


def test_a_database_without_tables_is_diagnosed(installation: Installation) -> None:
    """The most frequent mistake of a first installation is that `migrate` was never run."""
    installation.sql("DROP TABLE mail_credentials, oauth_clients, refresh_events, alembic_version")

    doctor = installation.cli("doctor")

    assert doctor.returncode == 1
    assert "run: token-worker migrate" in doctor.stdout
    check_sentence(installation.cli("list"), 4, "migrate")
    assert installation.cli("migrate").stdout.startswith("migrated: ")
    assert installation.cli("migrate").stdout == "already up to date\n"
    assert installation.cli("doctor").returncode == 0


def test_a_refused_secret_is_diagnosed(installation: Installation) -> None:
    """`doctor` sends no secret. It reports the errors of the refreshes."""
    emails = [f"user{number}@contoso.com" for number in range(3)]
    installation.enrol(*emails)
    for email in emails:
        installation.cli("refresh", email, WORKER_CLIENT_SECRET="another")

    doctor = installation.cli("doctor")

    assert doctor.returncode == 1
    assert "FAIL  app registration default: refreshes meet misconfigured (AADSTS7000215)" in doctor.stdout


def test_status_counts_what_waits_in_the_outbox(installation: Installation) -> None:
    """While Redis is down, it prints all other counts."""
    with closing(connect(installation.environment["WORKER_REDIS_URL"])) as redis:
        redis.hset("token-worker:outbox", str(account_id(ANN)), "{}")

    status = json.loads(installation.cli("status", "--json").stdout)
    alone = json.loads(installation.cli("status", "--json", WORKER_REDIS_URL="redis://127.0.0.1:1/0").stdout)

    assert status["in_outbox"] == 1
    assert alone == status | {"in_outbox": None}


def test_a_program_that_is_rolled_back_starts(installation: Installation) -> None:
    """`migrate` may run before every start, so it must accept a newer schema."""
    [(version,)] = installation.sql("SELECT version_num FROM alembic_version")
    installation.sql("UPDATE alembic_version SET version_num = '29990101_0000'")
    try:
        done = installation.cli("migrate")
        assert (done.returncode, "newer than this program" in done.stdout) == (0, True)
        assert installation.cli("doctor").returncode == 0
    finally:  # other tests use the same database
        installation.sql(f"UPDATE alembic_version SET version_num = '{version}'")
