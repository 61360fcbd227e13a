"""``token-worker import`` as an operator runs it."""

import json
from pathlib import Path

from tests.constants import ANN, BOB, CAT
from tests.e2e.deployment import Deployment
from tests.e2e.terminal import in_terminal

_CSV = f"email,refresh_token\n{ANN},1.A\nnobody,1.SECRET\n{BOB},1.B\nm\xfcller@contoso.com,2\n"


def test_refused_rows_go_to_a_file_that_can_be_imported(deployment: Deployment) -> None:
    """It has the rows as they were, with their header. Other users cannot read it, and no old file is overwritten."""
    file, rejects = deployment.directory / "accounts.csv", deployment.directory / "rejects.csv"
    file.write_bytes(_CSV.encode("latin-1"))

    done = deployment.cli("import", str(file), "--rejects", str(rejects))

    assert (done.returncode, done.stdout) == (1, "2 imported (2 new, 0 replaced), 2 refused\n")
    assert done.stderr == "line 3: email is not an e-mail address\nline 5: not UTF-8; save the file in this encoding\n"
    assert rejects.stat().st_mode & 0o777 == 0o600
    assert rejects.read_text("latin-1") == "email,refresh_token\nnobody,1.SECRET\nm\xfcller@contoso.com,2\n"
    again = deployment.cli("import", str(file), "--rejects", str(rejects))
    assert (again.returncode, again.stderr) == (1, f"Error: {rejects}: File exists; name a new file\n")
    rejects.write_text(rejects.read_text("latin-1").replace("nobody", CAT))
    corrected = deployment.cli("import", str(rejects), "--skip-existing")
    assert corrected.stdout == "2 imported (2 new, 0 replaced), 0 left as they were, 0 refused\n"


def test_a_trial_run_for_machines(deployment: Deployment) -> None:
    """Nothing is stored."""
    done = deployment.cli("import", "-", "--dry-run", "--json", stdin=_CSV)

    assert json.loads(done.stdout) == {
        "new": 3,
        "replaced": 0,
        "left": 0,
        "repeated": 0,
        "refused": 1,
        "expiry_missing": 0,
    }
    assert deployment.accounts() == {}
    assert deployment.cli("import", "-", "--dry-run", stdin=_CSV).stdout.startswith("3 would be imported (3 new, ")


def test_a_terminal_shows_a_bar_with_rate_and_the_first_reasons(deployment: Deployment, tmp_path: Path) -> None:
    """The line of each reason is whole, and the number of the others follows."""
    file = tmp_path / "accounts.jsonl"
    lines = [json.dumps({"email": f"user{number}@contoso.com", "refresh_token": "1.A"}) for number in range(2000)]
    file.write_text("\n".join([*lines, *["nonsense"] * 30]))

    status, output = in_terminal(deployment, "import", str(file))

    assert status == 1
    assert "[####" in output
    assert "/s" in output
    assert output.count("not a JSON object") == 20
    assert "... and 10 more" in output
    assert "2000 imported (2000 new, 0 replaced), 30 refused" in output


def test_contradictory_options_are_one_sentence(deployment: Deployment) -> None:
    done = deployment.cli("import", "-", "--skip-existing", "--only-newer")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "Error: --skip-existing and --only-newer exclude each other"
