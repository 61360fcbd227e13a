"""The systemd units are valid, and keep the project's promises."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.process_secrets import SECRETS

DIRECTORY = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(DIRECTORY.glob("token-worker-*.service"))
COMMON = (DIRECTORY / "token-worker-.service.d" / "common.conf").read_text()
PREFIX = "/opt/token-refresh-worker/bin"
MAX_EXPOSURE = 2.0  # of 10; below 2 systemd says OK

units = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem.removeprefix("token-worker-"))
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def analyze(directory: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        env={"SYSTEMD_UNIT_PATH": f"{directory}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", name="installed")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with commands that exist on this machine."""
    directory = tmp_path_factory.mktemp("units") / "system"
    shutil.copytree(DIRECTORY, directory)
    for unit in directory.glob("*.service"):
        unit.write_text(unit.read_text().replace(PREFIX, str(Path(sys.executable).parent)))
    return directory


@needs_systemd
def test_systemd_accepts_the_units(installed: Path) -> None:
    """It reports a misspelt key on standard error and succeeds, so there must be no word about these units."""
    said = analyze(installed, "verify", installed / "token-worker.target", *sorted(installed.glob("*.service")))

    assert [line for line in said.splitlines() if "token-worker" in line and "is dropped" not in line] == []


@needs_systemd
@units
def test_a_unit_is_hardened(installed: Path, unit: Path) -> None:
    said = analyze(installed, "security", "--offline=true", installed / unit.name)

    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found
    assert float(found[1]) < MAX_EXPOSURE


@units
def test_a_unit_gets_only_the_secrets_of_its_role(unit: Path) -> None:
    """systemd hands over the files that the unit names, and the README lists the same."""
    name = unit.stem.removeprefix("token-worker-")
    credentials = re.findall(r"^LoadCredential=(\w+):(\S+)$", unit.read_text(), re.MULTILINE)

    assert {setting for setting, _ in credentials} == SECRETS[name]
    for setting, path in credentials:
        assert path == f"/etc/token-refresh-worker/{'worker' if name == 'ondemand' else name}/{setting}"


@pytest.mark.parametrize("name", ["worker", "ondemand"])
def test_a_worker_has_time_to_stop(name: str) -> None:
    """A batch ends with its lease, which is 170 seconds at most. Children get no signal from systemd meanwhile."""
    text = (DIRECTORY / f"token-worker-{name}.service").read_text()

    assert "KillMode=mixed" in text
    assert "TimeoutStopSec=180" in text


@units
def test_a_process_that_ends_is_started_again(unit: Path) -> None:
    """Also one that ended itself because it hung, but not one whose configuration is wrong."""
    text = unit.read_text()
    if unit.stem != "token-worker-migrate":
        assert "Restart=always" in text
        assert "RestartPreventExitStatus=4" in text
    assert "StartLimitIntervalSec=0" in COMMON
