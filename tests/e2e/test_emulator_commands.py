"""docs/emulator.md: its commands against a running emulator, and its tests under pytest with the plugin."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.constants import ANN, BOB
from tests.e2e.deployment import BIN, Deployment
from tests.waiting import HANG_LIMIT

PAGE = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def _shown(deployment: Deployment, email: str = ANN) -> dict[str, object]:
    done = deployment.cli("emulator", "show", email)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_enrolled_users_are_imported_and_refreshed(deployment: Deployment) -> None:
    """The output of one command is the input of the other."""
    enrolled = deployment.cli("emulator", "enrol", ANN, BOB, "--access-token", "3000")
    assert deployment.cli("import", "-", stdin=enrolled.stdout).stdout == "2 imported (2 new, 0 replaced), 0 refused\n"
    assert deployment.cli("refresh", ANN).returncode == 0
    assert _shown(deployment)["refreshes"] == 1
    assert json.loads(deployment.cli("emulator", "show").stdout)["refreshes"] == 1


def test_revoked_users_and_faults_fail_a_refresh(deployment: Deployment) -> None:
    """Each as Microsoft answers it, for one user or all, so many times or until it is ended."""
    for arguments, code in (
        (["fault", "AADSTS50076", "--email", ANN], "AADSTS50076"),
        (["fault", "throttled", "--retry-after", "30", "--times", "1"], "http_429"),
        (["revoke", ANN], "AADSTS50173"),
    ):
        grant = deployment.cli("emulator", "enrol", ANN).stdout
        deployment.cli("import", "-", stdin=grant)
        done = deployment.cli("emulator", *arguments)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        failed = deployment.cli("refresh", ANN)
        assert failed.returncode != 0
        assert code in failed.stderr
        assert deployment.cli("emulator", "faults-end").returncode == 0
    deployment.cli("import", "-", stdin=deployment.cli("emulator", "enrol", ANN).stdout)
    assert deployment.cli("refresh", ANN).returncode == 0


def test_lifetimes_change_with_the_next_refresh(deployment: Deployment) -> None:
    deployment.cli("import", "-", stdin=deployment.cli("emulator", "enrol", ANN).stdout)
    assert deployment.cli("emulator", "lifetimes", ANN, "--access-token", "600-601", "--strict").returncode == 0
    deployment.cli("refresh", ANN)
    [(seconds,)] = deployment.sql(
        "SELECT extract(epoch FROM token_expiry - token_obtained_at)::int FROM mail_credentials"
    )
    assert 595 <= seconds <= 605


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "sentence"),
    [
        (["revoke", "nobody@contoso.test"], {}, 1, "not found: nobody@contoso.test"),
        (["fault", "no-such"], {}, 1, "no fault is named 'no-such'; known are AADSTS codes and garbage-client-info, "),
        (["enrol", ANN, "--access-token", "soon"], {}, 2, "write seconds, such as 90, or a range, such as 60-90"),
        (["enrol", ANN, "--access-token", "90-60"], {}, 2, "write seconds, such as 90, or a range, such as 60-90"),
        (["lifetimes", ANN], {}, 2, "say what to change: see --help"),
        (["revoke", ANN], {"WORKER_AUTHORITY": ""}, 2, "Missing option '--authority'"),
        (
            ["revoke", ANN],
            {"WORKER_AUTHORITY": "https://login.microsoftonline.com/common"},
            1,
            "the authority is not the emulator's: set WORKER_AUTHORITY as the emulator prints it",
        ),
        (
            ["revoke", ANN],
            {"WORKER_AUTHORITY": "https://localhost:1/common"},
            1,
            "no emulator answers at localhost:1: ",
        ),
        (["revoke", ANN], {"WORKER_CA_BUNDLE": "/no/file"}, 1, "/no/file cannot be used as CA bundle: "),
    ],
)
def test_a_mistake_is_one_sentence(
    deployment: Deployment, arguments: list[str], environment: dict[str, str], status: int, sentence: str
) -> None:
    """Commands never call Microsoft."""
    done = deployment.cli("emulator", *arguments, **environment)
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_each_command_of_the_page_works(deployment: Deployment) -> None:
    """The block that runs an emulator, and then each row of the table."""
    start = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1].replace("8443", "0")
    rows = re.findall(r"`(token-worker emulator [^`]*)`", PAGE.partition("| you want to")[2].partition("## In the")[0])
    own_directory = "trap 'kill %1' EXIT; mkdir emulator; cd emulator; unset WORKER_AUTHORITY WORKER_CA_BUNDLE"
    script = "\n".join([own_directory, start, *(row.replace("\\|", "|") for row in rows)])
    deployment.environment["PATH"] = f"{BIN}:{os.environ['PATH']}"

    done = deployment.run(["bash", "-euo", "pipefail", "-c", script])

    assert done.returncode == 0, done.stderr
    assert len(rows) == 11
    assert "1 imported (1 new, 0 replaced), 0 refused" in done.stdout
    assert "The emulator is ready; Ctrl-C ends it." in done.stderr


def test_the_tests_of_the_page_pass_under_pytest_with_the_plugin(tmp_path: Path) -> None:
    """As an application runs them: pytest loads the plugin by the entry point of the installed package."""
    [(name, source)] = re.findall(r"^```python\n# (test_\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / name).write_text(source)

    done = _pytest(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_fixture_says_which_extra_is_missing(tmp_path: Path) -> None:
    """Tests that do not use it run as ever."""
    (tmp_path / "conftest.py").write_text("import sys; sys.modules['uvicorn'] = None")
    (tmp_path / "test_both.py").write_text(
        "def test_one(): pass\ndef test_two(microsoft_emulator): raise AssertionError('started')"
    )

    done = _pytest(tmp_path)

    assert "1 passed, 1 error" in done.stdout
    assert "uvicorn is not installed: pip install 'token-refresh-worker[demo]'" in done.stdout


def _pytest(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_LIMIT,
    )
