"""A wrong setting, command or store costs its operator one sentence and an exit code, never a traceback."""

import json
import subprocess
from contextlib import closing

import pytest

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


def check_sentence(answer: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on standard error that holds the words, nothing on standard output, and the exit code."""
    assert (answer.returncode, answer.stdout) == (code, ""), answer.stderr
    assert len(answer.stderr.splitlines()) == 1, answer.stderr
    assert all(word in answer.stderr for word in words), answer.stderr


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
    """Exit code 4 and the name of the setting; never its value, which may be half a password."""
    del deployment.environment[setting]
    if value is not None:
        deployment.environment[setting] = value

    answer = deployment.run(COMMANDS[command])

    check_sentence(answer, 4, setting)
    assert "hunter2" not in answer.stderr
    assert "too-short" not in answer.stderr


def test_a_misspelt_setting_is_found_by_the_doctor(deployment: Deployment) -> None:
    """A variable that means nothing would otherwise be missed for months."""
    answer = deployment.cli("doctor", WORKER_SWEEP_INTERVALL="1")

    assert answer.returncode == 1
    assert "FAIL  settings: not a setting: WORKER_SWEEP_INTERVALL" in answer.stdout
    assert answer.stderr == ""


def test_the_exit_code_names_the_actor(deployment: Deployment) -> None:
    """2: whoever typed the command. 1: the account is not there. 3: the mailbox's user."""
    deployment.add_due_accounts(ANN)
    deployment.emulator.add_fault(fault_named("50173"), ANN)

    assert deployment.cli("token").returncode == 2
    assert deployment.cli("no-such-command").returncode == 2
    assert deployment.cli("token", ANN, "--min-ttl", "soon").returncode == 2
    check_sentence(deployment.cli("token", "not an address"), 2, "not an e-mail address")
    check_sentence(deployment.cli("token", "bob@contoso.com"), 1, "bob@contoso.com", "no such account")
    check_sentence(deployment.cli("token", ANN), 3, ANN, "sign in again", "AADSTS50173")


def test_commands_say_that_postgres_is_down(deployment: Deployment) -> None:
    """Nobody listens on the port: one sentence, exit code 1."""
    down = {"WORKER_DATABASE_URL": "postgresql://app:hunter2@127.0.0.1:1/app"}

    for command in (["list"], ["token", ANN], ["migrate"], ["status"]):
        answer = deployment.cli(*command, **down)
        check_sentence(answer, 1, "the database cannot be used")
        assert "hunter2" not in answer.stderr
    doctor = deployment.cli("doctor", **down)
    assert doctor.returncode == 1
    assert doctor.stderr == ""
    assert "FAIL  postgres: the database cannot be used" in doctor.stdout
    assert "ok    redis" in doctor.stdout


def test_commands_go_on_while_redis_is_down(deployment: Deployment) -> None:
    """Redis is a copy: the doctor reports it, and a token comes from Postgres."""
    down = {"WORKER_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    deployment.add_due_accounts(ANN)

    doctor = deployment.cli("doctor", **down)
    token = deployment.cli("token", ANN, **down)

    assert doctor.returncode == 1
    assert doctor.stderr == ""
    assert "FAIL  redis: Redis cannot be used" in doctor.stdout
    assert "ok    postgres" in doctor.stdout
    assert (token.returncode, token.stderr) == (0, "")
    assert token.stdout.startswith("eyJ")
    assert "hunter2" not in doctor.stdout


def test_tokens_sealed_under_a_lost_key_cost_one_sentence(deployment: Deployment) -> None:
    """The key is gone from the settings: the account is refused by name, and what it holds stays as it is."""
    deployment.add_due_accounts(ANN)
    before = deployment.sql("SELECT refresh_token FROM mail_credentials")

    answer = deployment.cli("token", ANN, WORKER_ENCRYPTION_KEYS=generate_key("k2"))

    check_sentence(answer, 1, ANN)
    assert deployment.sql("SELECT refresh_token FROM mail_credentials") == before


def test_a_database_without_tables_is_diagnosed(deployment: Deployment) -> None:
    """The commonest mistake of a first deployment: migrate was never run."""
    deployment.sql("DROP TABLE mail_credentials, oauth_clients, refresh_events, alembic_version")

    doctor = deployment.cli("doctor")

    assert doctor.returncode == 1
    assert "run: token-worker migrate" in doctor.stdout
    check_sentence(deployment.cli("list"), 4, "migrate")
    assert deployment.cli("migrate").stdout.startswith("migrated: ")
    assert deployment.cli("migrate").stdout == "already up to date\n"
    assert deployment.cli("doctor").returncode == 0


def test_a_refused_secret_is_diagnosed(deployment: Deployment) -> None:
    """`doctor` tries no secret; it tells what the refreshes have met."""
    emails = [f"user{number}@contoso.com" for number in range(3)]
    deployment.add_due_accounts(*emails)
    for email in emails:
        deployment.cli("refresh", email, WORKER_CLIENT_SECRET="another")

    doctor = deployment.cli("doctor")

    assert doctor.returncode == 1
    assert "FAIL  app registration default: refreshes meet misconfigured (AADSTS7000215)" in doctor.stdout


def test_status_counts_the_results_in_the_outbox(deployment: Deployment) -> None:
    """And tells the rest while Redis is away."""
    with closing(connect(deployment.environment["WORKER_REDIS_URL"])) as redis:
        redis.hset("token-worker:outbox", str(account_id(ANN)), "{}")

    status = json.loads(deployment.cli("status", "--json").stdout)
    alone = json.loads(deployment.cli("status", "--json", WORKER_REDIS_URL="redis://127.0.0.1:1/0").stdout)

    assert status["in_outbox"] == 1
    assert alone == status | {"in_outbox": None}


def test_a_program_that_is_rolled_back_starts(deployment: Deployment) -> None:
    """Where `migrate` runs before every start, it must let an older program come back."""
    [(version,)] = deployment.sql("SELECT version_num FROM alembic_version")
    deployment.sql("UPDATE alembic_version SET version_num = '29990101_0000'")
    try:
        answer = deployment.cli("migrate")
        assert (answer.returncode, "newer than this program" in answer.stdout) == (0, True)
        assert deployment.cli("doctor").returncode == 0
    finally:  # others are given the same database
        deployment.sql(f"UPDATE alembic_version SET version_num = '{version}'")
