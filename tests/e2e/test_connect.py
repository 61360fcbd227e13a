"""``token-worker connect`` shows a code, a user enters it on another device, and the mailbox is stored."""

import re
import sys

import pytest

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from tests.waiting import HANG_LIMIT, wait_for


@pytest.mark.parametrize(
    ("username", "note"),
    [
        (ANN, ""),
        ("admin@contoso.com", "Note: signed in as admin@contoso.com, for the mailbox ann@contoso.com.\n"),
        ("+4915112345678", "Note: signed in as +4915112345678, for the mailbox ann@contoso.com.\n"),
    ],
)
def test_the_mailbox_that_was_named_is_stored_under_any_user_name(
    deployment: Deployment, username: str, note: str
) -> None:
    """The name of the user who signs in may be another address or a telephone number."""
    process = deployment.start([sys.executable, "-m", "worker", "connect", " Ann@Contoso.com"])
    shown = wait_for(
        lambda: re.search(r"enter the code (\S+)\.\n", process.output()), about="a code", processes=[process]
    )

    deployment.emulator.approve_device(shown[1], username)

    assert process.wait(HANG_LIMIT) == 0, process.output()
    assert process.output()[shown.end() :] == f"{note}{ANN} is connected.\n"
    assert list(deployment.accounts()) == [ANN]


def test_the_login_name_and_the_labels_of_the_mailbox_are_stored(deployment: Deployment) -> None:
    process = deployment.start(
        [sys.executable, "-m", "worker", "connect", ANN, "--login-name", "ann@corp.example", "--label", "EU"]
    )
    shown = wait_for(
        lambda: re.search(r"enter the code (\S+)\.\n", process.output()), about="a code", processes=[process]
    )
    deployment.emulator.approve_device(shown[1], ANN)

    assert process.wait(HANG_LIMIT) == 0, process.output()
    assert deployment.accounts()[ANN].mail.login_name == "ann@corp.example"
    assert deployment.accounts()[ANN].labels == ("eu",)


def test_the_grant_is_refreshed_as_that_of_a_public_client(deployment: Deployment) -> None:
    """Microsoft would refuse the secret, because the account is personal."""
    process = deployment.start([sys.executable, "-m", "worker", "connect", "ann@outlook.com"])
    shown = wait_for(
        lambda: re.search(r"enter the code (\S+)\.\n", process.output()), about="a code", processes=[process]
    )
    deployment.emulator.approve_device(shown[1], "ann@outlook.com")
    assert process.wait(HANG_LIMIT) == 0, process.output()
    before = deployment.emulator.statistics()

    deployment.cli("refresh", "ann@outlook.com")

    after = deployment.emulator.statistics()
    assert (after.requests - before.requests, after.failures - before.failures) == (1, 0)
