"""Commands explain each code that they show, and their output fits a terminal of 80 columns."""

import json
import re

import pytest

from tests.constants import ANN, BOB
from tests.e2e.deployment import BIN, Deployment
from tests.e2e.terminal import COLUMNS, in_terminal
from worker.devkit.emulator import fault_named
from worker.domain.codes import hint

REVOKED, SECRET_EXPIRED = "AADSTS50173", "AADSTS7000222"
CORRELATION_ID = re.compile(r"^ *[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.MULTILINE)


@pytest.fixture(name="revoked")
def _revoked(deployment: Deployment) -> Deployment:
    """Ann's grant is revoked, Bob's is not."""
    deployment.add_due_accounts(ANN, BOB)
    deployment.emulator.add_fault(fault_named("50173"), ANN)
    for email in (ANN, BOB):
        deployment.cli("refresh", email)
    return deployment


@pytest.fixture(name="secretless")
def _secretless(deployment: Deployment) -> Deployment:
    """Microsoft has refused the registration's secret often enough to open its breaker."""
    emails = [f"user{number}@contoso.com" for number in range(5)]
    deployment.add_due_accounts(*emails)
    for email in emails:
        deployment.emulator.add_fault(fault_named("7000222"), email)
    with deployment.services() as services:
        services.refresher.refresh_due()
    return deployment


def test_show_explains_a_failure(revoked: Deployment) -> None:
    """It prints the hint for the operator and the advice for the mailbox's user."""
    status, output = in_terminal(revoked, "show", ANN)

    assert status == 0
    words = " ".join(output.split())
    assert f"failure reauth_required ({REVOKED}) hint {hint(REVOKED)} advice Your password has changed" in words


def test_show_explains_nothing_without_a_failure(revoked: Deployment) -> None:
    output = revoked.cli("show", BOB).stdout

    assert re.search(r"^failure +-$", output, re.MULTILINE)
    assert re.search(r"^hint +-$", output, re.MULTILINE)
    assert re.search(r"^advice +-$", output, re.MULTILINE)


def test_show_fits_a_terminal(revoked: Deployment) -> None:
    """The correlation id is whole, because Microsoft's support asks for it."""
    for email in (ANN, BOB):
        status, output = in_terminal(revoked, "show", email)

        assert status == 0
        assert CORRELATION_ID.search(output.partition("latest refreshes")[2]), output
        assert max(map(len, output.splitlines())) <= COLUMNS, output
        assert "…" not in output


def test_list_fits_a_terminal(deployment: Deployment) -> None:
    """A row that is wider has its code on a line of its own."""
    long = "first.middle.last@subsidiary.contoso.com"
    deployment.add_due_accounts(long, BOB)
    deployment.emulator.add_fault(fault_named("50173"), long)
    for email in (long, BOB):
        deployment.cli("refresh", email)

    status, output = in_terminal(deployment, "list")

    assert status == 0
    assert max(map(len, output.splitlines())) <= COLUMNS, output
    assert re.search(rf"^{long}  reauth_required  .*\n  {REVOKED}$", output, re.MULTILINE), output


@pytest.mark.parametrize("command", [["list"], ["show", ANN]])
def test_json_has_each_part_of_a_failure(revoked: Deployment, command: list[str]) -> None:
    """The fields come in addition to `failure`, which combines kind and code."""
    account = json.loads(revoked.cli(*command, "--json").stdout.splitlines()[0])

    assert account["failure"] == f"reauth_required ({REVOKED})"
    assert (account["failure_kind"], account["failure_code"]) == ("reauth_required", REVOKED)
    assert account["hint"] == hint(REVOKED)
    assert account["advice"].startswith("Your password has changed")


def test_status_and_doctor_explain_the_code_of_a_breaker(secretless: Deployment) -> None:
    """An operator on call need not look the number up."""
    assert "client secret has expired" in hint(SECRET_EXPIRED)
    explained = re.compile(rf"misconfigured \({SECRET_EXPIRED}\), [a-z 0-9]+\. {re.escape(hint(SECRET_EXPIRED))}")
    for command in ("status", "doctor"):
        _, output = in_terminal(secretless, command)
        assert explained.search(" ".join(output.split()))
        assert max(map(len, output.splitlines())) <= COLUMNS, output
        assert explained.search(secretless.cli(command).stdout)
    [breaker] = json.loads(secretless.cli("status", "--json").stdout)["breakers"]
    assert (breaker["code"], breaker["hint"]) == (SECRET_EXPIRED, hint(SECRET_EXPIRED))


def test_refresh_explains_its_failure(secretless: Deployment, revoked: Deployment) -> None:
    """The explanation is on the line of the error."""
    done = secretless.cli("refresh", "user0@contoso.com")

    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f"misconfigured ({SECRET_EXPIRED}). {hint(SECRET_EXPIRED)}")
    assert len(done.stderr.splitlines()) == 1


def test_an_import_of_bad_bytes_stores_the_other_lines(deployment: Deployment) -> None:
    """A byte order mark is no error. Bytes that are not UTF-8 are an error, which names the line."""
    granted = {email: deployment.emulator.enrol(email).refresh_token for email in (ANN, BOB)}
    lines = [json.dumps({"email": email, "refresh_token": token}).encode() for email, token in granted.items()]
    bad = b'{"email": "m\xfcller@contoso.com", "refresh_token": "x"}'
    file = deployment.directory / "accounts.jsonl"
    file.write_bytes(b"\n".join([b"\xef\xbb\xbf" + lines[0], bad, lines[1], b""]))

    done = deployment.cli("import", str(file))

    assert done.returncode == 1
    assert done.stdout == "2 imported (2 new, 0 replaced), 1 refused\n"
    assert done.stderr == "line 2: not UTF-8; save the file in this encoding\n"
    assert set(deployment.accounts()) == {ANN, BOB}
    piped = deployment.run(["sh", "-c", f"{BIN / 'token-worker'} import - < {file}"])
    assert (piped.returncode, piped.stderr) == (1, done.stderr)
    assert piped.stdout == "2 imported (0 new, 2 replaced), 1 refused\n"
