"""Secrets that change on disk are taken up without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.factories import emails
from tests.waiting import wait_for
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Registration

SECRET, KEYS = "WORKER_CLIENT_SECRET", "WORKER_ENCRYPTION_KEYS"


@pytest.fixture(name="files")
def _files(deployment: Deployment, tmp_path: Path) -> Iterator[Path]:
    """The client secret and the keys are files and no variables."""
    values = {name: deployment.environment.pop(name) for name in (SECRET, KEYS)}
    for name, value in values.items():
        (tmp_path / name).write_text(value)
    yield tmp_path
    deployment.environment.update(values)
    deployment.emulator.registrations.register(Registration(DEFAULT_CLIENT_ID, (DEFAULT_CLIENT_SECRET,)))


def test_a_worker_takes_up_a_renewed_secret_and_survives_a_damaged_file(deployment: Deployment, files: Path) -> None:
    """Kubernetes and Vault replace files in running containers. A file that is half written must stop nothing."""
    first, second, third = emails(3)
    worker = deployment.worker(concurrency=1, WORKER_SECRETS_DIR=str(files))
    beat = deployment.celery("beat")

    def refreshes(email: str) -> None:
        keys = (files / KEYS).read_text()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(deployment.environment, KEYS, keys)
            patch.setitem(deployment.environment, SECRET, "not used")
            deployment.add_due_accounts(email)
        wait_for(
            lambda: deployment.emulator.statistics().by_account[email].refreshes == 1,
            about="a refresh",
            processes=[worker, beat],
        )

    refreshes(first)

    _replace(files / SECRET, "renewed")
    deployment.emulator.registrations.register(Registration(DEFAULT_CLIENT_ID, ("renewed",)))
    refreshes(second)
    assert "Changed settings taken up" in worker.output()

    keys = (files / KEYS).read_text()
    _replace(files / KEYS, "2026:too-short")
    wait_for(
        lambda: "Changed settings cannot be used; the worker keeps the old ones" in worker.output(),
        about="the damaged file to be seen",
        processes=[worker, beat],
    )
    assert "too-short" not in worker.output()
    _replace(files / KEYS, keys)
    refreshes(third)


def _replace(path: Path, text: str) -> None:
    """As Kubernetes does: a new file takes the place of the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)
