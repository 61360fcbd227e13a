"""Settings from the files in WORKER_SECRETS_DIR, as Docker and Kubernetes mount them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.settings.environment import COMPLETE, FABRIKAM, Environment, complaint
from worker.domain.token import Secret
from worker.settings import Settings, load


def test_values_come_from_files(directory: Path) -> None:
    """The line break at the end is not part of the value."""
    settings = load(Settings)

    assert settings.redis_url.get_secret_value() == COMPLETE["WORKER_REDIS_URL"]
    assert settings.registrations[0].credentials[0].secret == Secret("hunter2")


def test_a_file_may_be_named_in_lower_case(directory: Path) -> None:
    """Docker's secrets often are."""
    for path in list(directory.iterdir()):
        path.rename(path.with_name(path.name.lower()))

    assert load(Settings).client_id == "an-app"


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_named_clients_come_from_files_too(directory: Path, case: Callable[[str], str]) -> None:
    """A named client has its own secret, which belongs into a file like that of the default client."""
    for name, value in FABRIKAM.items():
        (directory / case(name)).write_text(f"{value}\n")

    registration = load(Settings).registrations[1]

    assert (registration.name, registration.client_id) == ("fabrikam", "theirs")
    assert registration.credentials[0].secret == Secret("hunter2 too")


def test_files_may_be_links_as_kubernetes_makes_them(environment: Environment, directory: Path) -> None:
    """The links point into a hidden directory, which Kubernetes replaces when a secret changes."""
    hidden = directory / "..2026_03_02_09_30_00.1"
    hidden.mkdir()
    (directory / "..data").symlink_to(hidden.name)
    for name in COMPLETE:
        (directory / name).rename(hidden / name)
        (directory / name).symlink_to(f"..data/{name}")

    assert load(Settings).client_id == "an-app"


def test_a_variable_wins_over_a_file(environment: Environment, directory: Path) -> None:
    """An operator can try another value without a change of the mounted file."""
    environment.setenv("WORKER_CLIENT_ID", "another-app")

    assert load(Settings).client_id == "another-app"


def test_a_malformed_file_is_named_and_not_shown(directory: Path) -> None:
    """The name of the file is the name of the setting."""
    (directory / "WORKER_DATABASE_URL").write_text("hunter2")

    assert complaint().startswith("WORKER_DATABASE_URL ")
