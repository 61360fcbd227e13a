"""Commands that had been SQL: a probe at once, an account erased, an address changed; and errors as JSON."""

import json
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, CAT
from tests.e2e.deployment import Deployment
from worker.clock import utcnow
from worker.devkit.emulator import fault_named
from worker.domain.account import Status, account_id

NEW = "ann.smith@contoso.com"


@pytest.fixture(name="open_breaker")
def _open_breaker(deployment: Deployment) -> Deployment:
    """The registration's secret was refused, and is accepted again. Its breaker waits for an hour."""
    deployment.add_due_accounts(ANN, BOB, CAT)
    deployment.sql(
        "INSERT INTO oauth_clients (name, failure_kind, failure_code, failures, open_until, updated_at)"
        " VALUES ('default', 'misconfigured', 'AADSTS7000222', 3, now() + interval '1 hour', now())"
    )
    return deployment


def test_a_breaker_is_tried_at_once(open_breaker: Deployment) -> None:
    """The probe succeeds, and the breaker closes."""
    assert open_breaker.cli("breaker", "list").stdout.startswith("default\tnot used for 60 min\tmisconfigured (AADST")
    with open_breaker.services() as services:
        assert services.refresher.refresh_due() == {"leased": 0}

    done = open_breaker.cli("breaker", "try", "default")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("default: the next sweep sends one probe.")
    with open_breaker.services() as services:
        assert services.refresher.refresh_due() == {"leased": 1, "refreshed": 1}
    assert open_breaker.cli("breaker", "list").stdout == "default\tclosed\t\n"
    assert (
        open_breaker.cli("breaker", "try", "default").stdout
        == "default: its breaker is closed, there is nothing to try.\n"
    )


def test_a_misspelt_registration_cannot_be_tried(open_breaker: Deployment) -> None:
    """The error lists the names."""
    done = open_breaker.cli("breaker", "try", "defualt", "--json")

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == {
        "code": "invalid_input",
        "message": "no app registration is called 'defualt'; known are default",
    }


@pytest.fixture(name="known")
def _known(deployment: Deployment) -> Deployment:
    """Ann and Bob have tokens, events and cache entries. A result of Ann waits in the outbox."""
    deployment.add_due_accounts(ANN, BOB)
    for email in (ANN, BOB):
        assert deployment.cli("refresh", email).returncode == 0
        assert deployment.cli("token", email).returncode == 0
    return deployment


def rows(deployment: Deployment, email: str) -> list[int]:
    counts = deployment.sql(
        "SELECT (SELECT count(*) FROM mail_credentials WHERE id = %s),"
        " (SELECT count(*) FROM refresh_events WHERE account_id = %s)",
        account_id(email),
        account_id(email),
    )
    return list(counts[0])


def keys_of(deployment: Deployment, email: str) -> list[bytes]:
    """The keys, and the hashes with a field, that name the account in Redis."""
    with deployment.services() as services:
        redis, name = services.redis, str(account_id(email))
        named = [key for key in redis.scan_iter(count=1000) if name.encode() in key]
        hashes = [key for key in redis.scan_iter(count=1000, _type="hash") if redis.hexists(key, name)]
        return named + hashes


def test_an_account_is_erased_with_all_that_is_known_of_it(known: Deployment) -> None:
    """The row, the events, the entry and the results that wait are deleted, and no other account's."""
    with known.services() as services:
        for key in ("token-worker:outbox", "token-worker:outbox:unreadable"):
            services.redis.hset(key, str(account_id(ANN)), b"a result")
    assert rows(known, ANN) == [1, 1]
    assert len(keys_of(known, ANN)) == 3

    done = known.cli("erase", ANN, stdin="y\n")

    assert (done.returncode, done.stdout) == (0, "1 account is erased.\n")
    assert "Erase 1 account and all that is known of them? [y/N]" in done.stderr
    assert (rows(known, ANN), keys_of(known, ANN)) == ([0, 0], [])
    assert (rows(known, BOB), len(keys_of(known, BOB))) == ([1, 1], 1)
    assert known.cli("token", BOB).returncode == 0
    known.add_due_accounts(ANN)
    assert known.cli("token", ANN).returncode == 0


def test_events_from_before_the_partitions_are_erased_as_well(known: Deployment) -> None:
    """An upgrade keeps the old table until its last row is too old."""
    known.sql("CREATE TABLE refresh_events_old AS SELECT * FROM refresh_events")
    try:
        assert known.cli("erase", ANN, "--yes").returncode == 0
        left = known.sql("SELECT DISTINCT account_id FROM refresh_events_old")
    finally:
        known.sql("DROP TABLE refresh_events_old")

    assert left == [(account_id(BOB),)]


def test_an_account_that_is_not_stored_cannot_be_erased(known: Deployment) -> None:
    done = known.cli("erase", "nobody@contoso.com", "--yes")

    assert (done.returncode, done.stderr) == (1, "no such account: nobody@contoso.com\n")


def test_an_account_moves_to_another_address(known: Deployment) -> None:
    """Tokens, events and state move along, so the user need not sign in."""
    token = known.cli("token", ANN).stdout

    done = known.cli("rename", ANN.upper(), NEW)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ANN} is {NEW} now.\n", "")
    assert known.cli("token", NEW).stdout == token
    assert (rows(known, ANN), rows(known, NEW), keys_of(known, ANN)) == ([0, 0], [1, 1], [])
    assert known.cli("refresh", NEW).returncode == 0
    assert rows(known, NEW) == [1, 2]
    gone = known.cli("token", ANN, "--json")
    assert gone.returncode == 1
    assert json.loads(gone.stdout)["error"]["code"] == "unknown_account"


def test_an_address_that_is_taken_is_not_replaced(known: Deployment) -> None:
    """Both accounts stay as they are."""
    before = known.accounts()

    assert known.cli("rename", ANN, BOB).stderr == f"Error: {BOB} is an account already; erase it first\n"
    assert known.cli("rename", ANN, ANN).stderr == "Error: the addresses are the same\n"
    assert known.cli("rename", "nobody@contoso.com", NEW).returncode == 1

    assert known.accounts() == before


def test_an_account_is_renamed_after_its_refresh(known: Deployment) -> None:
    """The refresh under way would bring its new refresh token to the old id."""
    soon = utcnow() + timedelta(seconds=1)
    known.sql("UPDATE mail_credentials SET lease_id = gen_random_uuid(), lease_until = %s WHERE email = %s", soon, ANN)

    assert known.cli("rename", ANN, NEW).returncode == 0

    assert utcnow() >= soon
    assert known.accounts()[NEW].status is Status.ACTIVE


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["token", "nobody@contoso.com", "--json"], 1, "unknown_account"),
        (["refresh", ANN, "--json"], 3, "needs_user"),
        (["list", "--status", "nonsense", "--json"], 2, "usage"),
        (["pause", "--json"], 2, "usage"),
        (["show", "ann", "--json"], 2, "invalid_input"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_an_error_is_json_for_a_command_with_json(
    deployment: Deployment, arguments: list[str], status: int, code: str
) -> None:
    """It is on standard output, in the place of the result. The exit code is the same as without the option."""
    deployment.add_due_accounts(ANN)
    deployment.emulator.add_fault(fault_named("50173"), ANN)

    done = deployment.cli(*arguments)

    assert (done.returncode, done.stderr) == (status, "")
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code
    if code == "needs_user":
        assert (error["email"], error["reason"]) == (ANN, "AADSTS50173")
        assert error["advice"].startswith("Your password has changed")


def test_a_wrong_setting_is_json_as_well(deployment: Deployment) -> None:
    done = deployment.cli("status", "--json", WORKER_DATABASE_URL="nonsense")

    assert (done.returncode, done.stderr) == (4, "")
    assert json.loads(done.stdout)["error"]["code"] == "configuration"
