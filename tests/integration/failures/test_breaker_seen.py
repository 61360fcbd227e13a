"""An app registration's breaker is open: what consumers and operators see of it, and what they can do."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.factories import NOW
from tests.integration.failures.mailboxes import ANN, BOB, Mailboxes, emails
from worker.bootstrap import Services
from worker.clock import utcnow
from worker.devkit.emulator import fault_named
from worker.domain.account import Grant, account_id
from worker.domain.errors import BackingOff, ClientMisconfigured
from worker.domain.secret import Secret

MINUTE = timedelta(minutes=1)


def test_a_consumer_is_told_what_is_wrong_with_the_app(mailboxes: Mailboxes, rival: Services) -> None:
    """It cannot help it, and neither can the user: the operator can. Microsoft is not asked."""
    mailboxes.sign_in(ANN, BOB, *emails(3))
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    mailboxes.query("UPDATE mail_credentials SET failure_count = 0, refresh_due_at = :now", now=NOW)

    def read() -> None:
        for services in (mailboxes.services, rival):
            with pytest.raises(ClientMisconfigured) as caught:
                services.tokens.get(ANN)
            assert (caught.value.client, caught.value.reason) == ("default", "AADSTS7000215")

    assert mailboxes.asked(read) == 0


def test_a_consumer_is_told_when_to_come_back(mailboxes: Mailboxes, rival: Services, fifty: list[str]) -> None:
    """Also one whose own account has never been asked about."""
    mailboxes.emulator.add_fault(fault_named("throttled"))
    mailboxes.refresh_due()
    [waiting] = [account.email for account in mailboxes.accounts() if account.failure is None][:1]
    mailboxes.clock.advance(seconds=20)

    with pytest.raises(BackingOff) as caught:
        rival.tokens.get(waiting)

    assert (caught.value.reason, caught.value.retry_after) == ("http_429", timedelta(seconds=40))


def test_a_token_that_still_lives_is_served_while_the_breaker_is_open(
    mailboxes: Mailboxes, rival: Services, fifty: list[str]
) -> None:
    """Two minutes are not fresh, but enough to fetch mail, and better than an error."""
    living = Grant(
        email=ANN,
        refresh_token=Secret(mailboxes.emulator.enrol(ANN).refresh_token),
        access_token=Secret("living"),
        expires_at=NOW + 60 * MINUTE,
    )
    mailboxes.services.accounts.save([living])
    mailboxes.clock.advance(minutes=58)
    mailboxes.refuse_the_secret()
    mailboxes.query(f"UPDATE mail_credentials SET refresh_due_at = '{NOW + 59 * MINUTE}' WHERE email = '{ANN}'")
    mailboxes.refresh_due()

    assert mailboxes.asked(lambda: rival.tokens.get(ANN)) == 0
    assert rival.tokens.get(ANN).value == "living"
    mailboxes.clock.advance(minutes=2)
    with pytest.raises(ClientMisconfigured):
        rival.tokens.get(ANN)


def test_an_operator_asks_all_the_same(mailboxes: Mailboxes, rival: Services, fifty: list[str]) -> None:
    """Whoever refreshes by hand wants Microsoft's word and not ours; it does not lengthen anybody's wait."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    before = mailboxes.breakers()

    def by_hand() -> None:
        with pytest.raises(ClientMisconfigured):
            rival.on_demand.refresh_now(account_id(fifty[0]))

    assert mailboxes.asked(by_hand) == 1
    assert mailboxes.breakers() == before


def test_an_operators_refresh_is_as_good_a_canary_as_any(
    mailboxes: Mailboxes, rival: Services, fifty: list[str]
) -> None:
    """The secret is mended, the wait is over, and a person wants to see it work."""
    mailboxes.refuse_the_secret()
    mailboxes.refresh_due()
    mailboxes.take_the_secret()
    mailboxes.clock.advance(seconds=10)

    assert rival.on_demand.refresh_now(account_id(fifty[0])).version == 2

    assert mailboxes.breakers() == [(0, None, None)]
    assert mailboxes.refresh_due()["refreshed"] == 10


def test_status_tells_the_operator_which_app_is_in_trouble(
    mailboxes: Mailboxes, fifty: list[str], command: Callable[..., str]
) -> None:
    """Which, why, and until when; nothing once it is over."""
    mailboxes.clock.now = utcnow()
    mailboxes.emulator.add_fault(fault_named("throttled"))
    mailboxes.refresh_due()

    with ThreadPoolExecutor(2) as pool:
        for_machines, for_people = pool.submit(command, "status", "--json"), pool.submit(command, "status")
    [trouble] = json.loads(for_machines.result())["breakers"]
    assert (trouble["client"], trouble["outcome"], trouble["code"]) == ("default", "throttled", "http_429")
    assert trouble["open_until"] == (mailboxes.clock.now + MINUTE).isoformat()
    line = r"^app registration default: throttled \(http_429\), not used for \d\d s\. Microsoft throttles the app reg"
    assert re.search(line, for_people.result(), re.MULTILINE)

    mailboxes.query("UPDATE oauth_clients SET open_until = open_until - interval '1 h'")
    assert "app registration default: throttled (http_429), about to be tried again. Mic" in command("status")
    mailboxes.emulator.clear_faults()
    mailboxes.clock.advance(minutes=2)
    mailboxes.refresh_due()
    assert mailboxes.services.events.breakers() == []
