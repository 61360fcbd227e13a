"""The type of client that a grant belongs to is learnt once and kept with the account."""

import pytest

from tests.constants import ANN
from tests.integration.installation import Installation
from tests.integration.outboxes import pending
from worker.domain.account import Grant, account_id
from worker.domain.client_type import ClientType
from worker.domain.token import Secret

LEARNT = [ClientType.PUBLIC, ClientType.SPA]
BEN = "ben@outlook.com"


def refresh_again(installation: Installation) -> int:
    """The number of requests of one refresh of one account, which is granted."""
    installation.query("UPDATE mail_credentials SET refresh_due_at = :now", now=installation.clock())
    return installation.requests_during(lambda: _refreshed(installation))


def _refreshed(installation: Installation) -> None:
    assert installation.refresh_due() == {"leased": 1, "refreshed": 1}


def stored(installation: Installation) -> str | None:
    [(client_type,)] = installation.query("SELECT client_type FROM mail_credentials")
    return client_type  # type: ignore[no-any-return]


@pytest.mark.parametrize("client_type", LEARNT)
def test_only_the_first_refresh_sends_a_second_request(installation: Installation, client_type: ClientType) -> None:
    """Another process knows it, too."""
    installation.sign_in(BEN, due=True, client_type=client_type)

    assert refresh_again(installation) == 2
    assert stored(installation) == client_type
    assert refresh_again(installation) == 1
    other = installation.another_process()
    installation.query("UPDATE mail_credentials SET refresh_due_at = :now", now=installation.clock())
    assert installation.requests_during(other.refresher.refresh_due) == 1


def test_it_is_learnt_on_demand_too(installation: Installation) -> None:
    installation.sign_in(BEN, due=True, client_type=ClientType.PUBLIC)

    assert installation.requests_during(lambda: installation.services.tokens.get(BEN)) == 2

    assert stored(installation) == "public"


def test_a_sign_in_forgets_it(installation: Installation) -> None:
    """The new grant may come from another page. If the sign-in knows the type, no refresh has to learn it."""
    installation.sign_in(BEN, due=True, client_type=ClientType.PUBLIC)
    refresh_again(installation)

    installation.sign_in(BEN, due=True, client_type=ClientType.CONFIDENTIAL)
    assert stored(installation) is None
    assert refresh_again(installation) == 1
    assert stored(installation) is None

    token = installation.emulator.enrol(BEN, client_type=ClientType.PUBLIC).refresh_token
    grant = Grant(email=BEN, refresh_token=Secret(token), client_type=ClientType.PUBLIC)
    installation.services.accounts.save([grant])
    assert stored(installation) == "public"
    assert refresh_again(installation) == 1


def test_a_wrong_type_is_corrected(installation: Installation) -> None:
    """The app registration has become confidential, for example."""
    installation.sign_in(ANN, due=True)
    installation.query("UPDATE mail_credentials SET client_type = 'public'")

    assert refresh_again(installation) == 2
    assert stored(installation) is None


def test_a_failure_keeps_it(installation: Installation) -> None:
    """Only new tokens prove a type."""
    installation.sign_in(BEN, due=True, client_type=ClientType.PUBLIC)
    refresh_again(installation)
    installation.emulator.revoke(BEN)
    installation.query("UPDATE mail_credentials SET refresh_due_at = :now", now=installation.clock())

    assert installation.refresh_due() == {"leased": 1, "reauth_required": 1}

    assert stored(installation) == "public"


@pytest.mark.parametrize("client_type", ClientType)
def test_the_outbox_keeps_it(installation: Installation, client_type: ClientType) -> None:
    """Postgres has failed after Microsoft's answer."""
    installation.sign_in(BEN)
    installation.query("UPDATE mail_credentials SET client_type = 'spa'")
    assert installation.services.outbox.add([pending(account_id(BEN), client_type=client_type)])

    installation.services.outbox.deliver()

    assert installation.account(BEN).version == 2
    assert stored(installation) == (None if client_type is ClientType.CONFIDENTIAL else client_type)
