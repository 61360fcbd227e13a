"""An app registration's breaker is open: what consumers and operators see of it, and what they can do."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, MINUTE
from tests.factories import NOW, emails
from tests.integration.installation import Installation
from worker.bootstrap import Services
from worker.clock import utcnow
from worker.devkit.emulator import fault_named
from worker.domain.account import Grant, account_id
from worker.domain.errors import BackingOff, ClientMisconfigured
from worker.domain.token import Secret


def test_a_consumer_gets_the_error_of_the_app_registration(installation: Installation, other_process: Services) -> None:
    """Neither the consumer nor the user can help, only the operator can. No request is sent."""
    installation.sign_in(ANN, BOB, *emails(3), due=True)
    installation.reject_secret()
    installation.refresh_due()
    installation.query("UPDATE mail_credentials SET failure_count = 0, refresh_due_at = :now", now=NOW)

    def read() -> None:
        for services in (installation.services, other_process):
            with pytest.raises(ClientMisconfigured) as caught:
                services.tokens.get(ANN)
            assert (caught.value.client, caught.value.reason) == ("default", "AADSTS7000215")

    assert installation.requests_during(read) == 0


def test_a_consumer_gets_the_time_until_the_next_attempt(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """This includes a consumer whose own account has had no request yet."""
    installation.emulator.add_fault(fault_named("throttled"))
    installation.refresh_due()
    [waiting] = [account.email for account in installation.accounts() if account.failure is None][:1]
    installation.clock.advance(seconds=20)

    with pytest.raises(BackingOff) as caught:
        other_process.tokens.get(waiting)

    assert (caught.value.reason, caught.value.retry_after) == ("http_429", timedelta(seconds=40))


def test_a_live_token_is_served_while_the_breaker_is_open(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """Two minutes are not fresh, but enough to fetch mail, and better than an error."""
    living = Grant(
        email=ANN,
        refresh_token=Secret(installation.emulator.enrol(ANN).refresh_token),
        access_token=Secret("living"),
        expires_at=NOW + 60 * MINUTE,
    )
    installation.services.accounts.save([living])
    installation.clock.advance(minutes=58)
    installation.reject_secret()
    installation.query(f"UPDATE mail_credentials SET refresh_due_at = '{NOW + 59 * MINUTE}' WHERE email = '{ANN}'")
    installation.refresh_due()

    assert installation.requests_during(lambda: other_process.tokens.get(ANN)) == 0
    assert other_process.tokens.get(ANN).value == "living"
    installation.clock.advance(minutes=2)
    with pytest.raises(ClientMisconfigured):
        other_process.tokens.get(ANN)


def test_an_operators_refresh_is_sent_while_the_breaker_is_open(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """A manual refresh sends its request even now, and does not lengthen the wait of the others."""
    installation.reject_secret()
    installation.refresh_due()
    before = installation.breaker_rows()

    def by_hand() -> None:
        with pytest.raises(ClientMisconfigured):
            other_process.on_demand.refresh_now(account_id(fifty[0]))

    assert installation.requests_during(by_hand) == 1
    assert installation.breaker_rows() == before


def test_an_operators_refresh_counts_as_a_probe(
    installation: Installation, other_process: Services, fifty: list[str]
) -> None:
    """The secret is right again and the wait is over, so the operator's refresh closes the breaker."""
    installation.reject_secret()
    installation.refresh_due()
    installation.accept_secret()
    installation.clock.advance(seconds=10)

    assert other_process.on_demand.refresh_now(account_id(fifty[0])).version == 2

    assert installation.breaker_rows() == [(0, None, None)]
    assert installation.refresh_due()["refreshed"] == 10


def test_status_shows_which_app_registration_fails(
    installation: Installation, fifty: list[str], command: Callable[..., str]
) -> None:
    """It names the app registration, the reason and the end of the wait, and nothing once the breaker is closed."""
    installation.clock.now = utcnow()
    installation.emulator.add_fault(fault_named("throttled"))
    installation.refresh_due()

    with ThreadPoolExecutor(2) as pool:
        for_machines, for_people = pool.submit(command, "status", "--json"), pool.submit(command, "status")
    [trouble] = json.loads(for_machines.result())["breakers"]
    assert (trouble["client"], trouble["outcome"], trouble["code"]) == ("default", "throttled", "http_429")
    assert trouble["open_until"] == (installation.clock.now + MINUTE).isoformat()
    line = r"^! app registration default: throttled \(http_429\), not used for \d\d s\. Microsoft throttles the app reg"
    assert re.search(line, for_people.result(), re.MULTILINE)

    installation.query("UPDATE oauth_clients SET open_until = open_until - interval '1 h'")
    assert "app registration default: throttled (http_429), about to be tried again. Mic" in command("status")
    installation.emulator.clear_faults()
    installation.clock.advance(minutes=2)
    installation.refresh_due()
    assert installation.services.events.breakers() == []
