"""Commands on many accounts: which are selected, what is asked first, and what is changed."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from tests.constants import ANN, BOB, CAT, DAN
from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import wait_for
from worker.db.pauses import all_for_sign_ins
from worker.domain.account import Status

EVE = "eve@tailspin.com"


@pytest.fixture(name="fleet")
def _fleet(deployment: Deployment) -> Deployment:
    """Ann and Bob are rejected by Microsoft, Cat fails for another reason, Dan and Eve are well; Eve is of another
    domain and app registration."""
    deployment.add_due_accounts(ANN, BOB, CAT, DAN, EVE)
    deployment.sql(
        "UPDATE mail_credentials SET status = 'reauth_required', failure_kind = 'reauth_required', failure_count = 1,"
        " failure_code = 'AADSTS50173', failing_since = now() - interval '1 hour',"
        " status_changed_at = now() - interval '1 hour' WHERE email = ANY(%s)",
        [ANN, BOB],
    )
    deployment.sql(
        "UPDATE mail_credentials SET failure_kind = 'transient', failure_count = 2, failure_code = 'http_503',"
        " failing_since = now() - interval '3 days' WHERE email = %s",
        CAT,
    )
    deployment.sql("UPDATE mail_credentials SET client = 'other' WHERE email = %s", EVE)
    deployment.sql("UPDATE mail_credentials SET labels = '{customer=42,plan=pro}' WHERE email = ANY(%s)", [CAT, DAN])
    return deployment


def selected(fleet: Deployment, *options: str) -> list[str]:
    done = fleet.cli("list", "--json", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["email"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [ANN, BOB, CAT, DAN, EVE]),
        (("--failing",), [ANN, BOB, CAT]),
        (("--code", "50173"), [ANN, BOB]),
        (("--code", "aadsts50173", "--code", "http_503"), [ANN, BOB, CAT]),
        (("--status", "active"), [CAT, DAN, EVE]),
        (("--status", "active", "--failing"), [CAT]),
        (("--client", "other"), [EVE]),
        (("--domain", "@Tailspin.com"), [EVE]),
        (("--failing", "--since", "2h"), [ANN, BOB]),
        (("--since", "2026-01-01"), [ANN, BOB, CAT]),
        (("--label", "Customer=42"), [CAT, DAN]),
        (("--label", "customer=42", "--failing"), [CAT]),
        ((DAN, ANN.upper()), [ANN, DAN]),
        ((DAN, ANN, "--failing"), [ANN]),
        (("--limit", "2"), [ANN, BOB]),
        (("--sort", "since", "--limit", "3"), [ANN, BOB, CAT]),
    ],
    ids=" ".join,
)
def test_a_list_shows_the_accounts_that_fulfil_all_conditions(
    fleet: Deployment, options: tuple[str, ...], expected: list[str]
) -> None:
    """A condition that is given twice accepts either value."""
    assert selected(fleet, *options) == expected


def test_accounts_are_sorted_by_their_next_refresh(fleet: Deployment) -> None:
    """The longest overdue comes first, and accounts that are never refreshed come last."""
    fleet.sql("UPDATE mail_credentials SET refresh_due_at = %s WHERE email = %s", datetime(2020, 1, 1, tzinfo=UTC), DAN)
    fleet.cli("pause", ANN)

    assert selected(fleet, "--sort", "due") == [DAN, BOB, CAT, EVE, ANN]


def test_a_wrong_time_is_refused_with_an_example(fleet: Deployment) -> None:
    done = fleet.cli("list", "--since", "yesterday")

    assert (done.returncode, done.stdout) == (2, "")
    assert "write 30min, 2h, 3d, or an instant" in done.stderr


def test_one_command_resumes_all_accounts_with_a_code(fleet: Deployment) -> None:
    """The others stay as they are."""
    done = fleet.cli("resume", "--code", "50173", "--yes")

    assert (done.returncode, done.stdout, done.stderr) == (0, "2 accounts are active and due.\n", "")
    accounts = fleet.accounts()
    assert {accounts[email].status for email in (ANN, BOB)} == {Status.ACTIVE}
    assert accounts[ANN].failure is None
    assert accounts[CAT].failure is not None


@pytest.mark.parametrize(
    ("verb", "status", "unchanged"), [("pause", "paused", 1), ("disconnect", "disconnected", 0)], ids=str
)
def test_addresses_come_from_standard_input(fleet: Deployment, verb: str, status: str, unchanged: int) -> None:
    """One a line. An account that is paused already is counted apart."""
    fleet.cli("pause", DAN)

    done = fleet.cli(verb, "-", BOB, "--yes", "--json", stdin=f"{ANN}\n\n{DAN}\n")

    assert done.returncode == 0
    assert json.loads(done.stdout) == {"selected": 3, "changed": 3 - unchanged, "unknown": []}
    assert {fleet.accounts()[email].status for email in (ANN, BOB, DAN)} == {status}
    assert fleet.accounts()[CAT].status is Status.ACTIVE


def test_an_unknown_address_is_named_and_the_others_are_changed(fleet: Deployment) -> None:
    """The exit code is 1."""
    done = fleet.cli("pause", ANN, "nobody@contoso.com", "--yes")

    assert (done.returncode, done.stdout) == (1, "1 account is paused.\n")
    assert done.stderr == "no such account: nobody@contoso.com\n"


def test_nothing_is_changed_without_an_answer(fleet: Deployment) -> None:
    """The error names the option for scripts."""
    for answer, status in (("n\n", 2), ("", 2)):
        done = fleet.cli("pause", "--failing", stdin=answer)

        assert done.returncode == status
        assert "Stop refreshing 3 accounts? [y/N]:" in done.stderr
        assert "add --yes" in done.stderr
    assert Status.PAUSED not in {account.status for account in fleet.accounts().values()}

    assert fleet.cli("pause", "--failing", stdin="y\n").stdout == "3 accounts are paused.\n"


def test_a_dry_run_lists_the_accounts_and_changes_nothing(fleet: Deployment) -> None:
    """It needs no answer."""
    done = fleet.cli("disconnect", "--domain", "tailspin.com", "--dry-run")

    assert done.returncode == 0
    assert done.stdout.startswith(f"{EVE}\t")
    assert done.stdout.endswith("1 account; nothing was changed.\n")
    listed = json.loads(fleet.cli("resume", "--failing", "--dry-run", "--json").stdout)
    assert listed == {"selected": 3, "changed": 0, "accounts": [ANN, BOB, CAT]}
    assert fleet.accounts()[EVE].status is Status.ACTIVE


@pytest.mark.parametrize("verb", ["refresh", "pause", "resume", "disconnect"])
def test_all_accounts_are_taken_only_if_that_is_said(fleet: Deployment, verb: str) -> None:
    """A filter that was forgotten must not stop the fleet."""
    done = fleet.cli(verb, "--yes")

    assert done.returncode == 2
    assert "say which accounts" in done.stderr
    assert "5 accounts" in fleet.cli(verb, "--all", "--dry-run").stdout


def test_many_accounts_are_made_due_and_the_workers_refresh_them(fleet: Deployment) -> None:
    """An account that is refreshed at this moment, or never, is left out."""
    with fleet.services() as services:
        assert services.refresher.refresh_due()["leased"] == 4
    fleet.cli("pause", DAN)
    assert fleet.accounts()[ANN].failure is None

    done = fleet.cli("refresh", ANN, BOB, CAT, DAN, "--yes")

    assert done.stdout == "3 accounts are due; the workers refresh them.\n1 account stayed as it was.\n"
    with fleet.services() as services:
        assert services.refresher.refresh_due() == {"leased": 3, "refreshed": 3}


def test_three_hundred_accounts_are_put_back_by_one_command(deployment: Deployment) -> None:
    """Its statements are counted, because time on a busy machine proves nothing."""
    blocked = emails(302)
    deployment.add_due_accounts(*blocked)
    deployment.sql("UPDATE mail_credentials SET status = 'blocked', failure_count = 1, failure_code = 'AADSTS700016'")
    before = deployment.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]

    done = deployment.cli("resume", "--code", "700016", "--yes")

    assert done.stdout == "302 accounts are active and due.\n"
    after = deployment.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]
    assert after - before < 50
    assert {account.status for account in deployment.accounts().values()} == {Status.ACTIVE}


def test_a_paused_domain_holds_later_sign_ins_too(fleet: Deployment) -> None:
    """They come while the tenant's administrator still repairs it."""
    done = fleet.cli("pause", "--domain", "contoso.com", "--yes")

    assert done.stdout == (
        "3 accounts are paused.\nAccounts of contoso.com that sign in from now on are paused, too.\n"
    )
    fleet.add_due_accounts("new@contoso.com", ANN, "new@other.com")
    accounts = fleet.accounts()
    assert {email for email in accounts if accounts[email].status is Status.PAUSED} == {
        ANN,
        CAT,
        DAN,
        "new@contoso.com",
    }
    with fleet.services() as services:
        assert services.refresher.refresh_due()["leased"] == 2
    assert fleet.cli("token", "new@contoso.com").stderr.startswith("Error: new@contoso.com: is paused")

    done = fleet.cli("resume", "--domain", "contoso.com", "--yes")

    assert done.stdout == "4 accounts are active and due.\n"
    fleet.add_due_accounts("newer@contoso.com")
    assert {account.status for account in fleet.accounts().values()} == {Status.ACTIVE}


def test_a_paused_registration_holds_its_accounts_of_any_domain(fleet: Deployment) -> None:
    """With another filter beside it the command changes only the accounts that are there."""
    assert fleet.cli("pause", "--client", "default", "--failing", "--yes").stdout == "3 accounts are paused.\n"
    fleet.add_due_accounts("new@contoso.com")
    assert fleet.accounts()["new@contoso.com"].status is Status.ACTIVE

    assert fleet.cli("pause", "--client", "default", "--yes").returncode == 0

    many = emails(60, "many.com")  # so many are stored by COPY
    fleet.add_due_accounts("newer@contoso.com", *many)
    accounts = fleet.accounts()
    assert [accounts[email].status for email in ("newer@contoso.com", many[0], many[59])] == [Status.PAUSED] * 3
    assert accounts[EVE].status is Status.ACTIVE


def test_a_sign_in_that_is_being_stored_is_paused_with_its_domain(fleet: Deployment) -> None:
    """Its transaction has found no pause, and is committed after the pause was requested."""
    with fleet.services() as services, ThreadPoolExecutor(1) as pool:
        with services.database.begin() as connection:
            assert all_for_sign_ins(connection) == []
            paused = pool.submit(fleet.cli, "pause", "--domain", "late.com", "--yes")
            wait_for(
                lambda: bool(fleet.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'")),
                about="the command to wait for the transaction",
            )
            connection.execute(
                text(
                    "INSERT INTO mail_credentials (id, email, created_at, updated_at)"
                    " VALUES (gen_random_uuid(), 'a@late.com', now(), now())"
                )
            )
        assert paused.result().stdout.startswith("1 account is paused.")
    assert fleet.accounts()["a@late.com"].status is Status.PAUSED
