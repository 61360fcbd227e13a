"""Each act on accounts is recorded, with its actor and reason, in the transaction that does it."""

import getpass
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, DAY
from tests.integration.installation import Installation
from worker.bootstrap import Services, bootstrap
from worker.domain.account import account_id
from worker.domain.audit import Act, Actor, parse_reason
from worker.domain.errors import InvalidInput
from worker.domain.pause import Group
from worker.observability.actor import current_actor

_ACTOR = Actor(user="erin", host="desk", program="token-worker", reason="ticket 7")


@pytest.fixture(name="erin")
def _erin(installation: Installation) -> Services:
    services = bootstrap(installation.settings, actor=_ACTOR, utcnow=installation.clock)
    installation.cleanup.callback(services.close)
    return services


def _acts(installation: Installation, email: str | None = None) -> list[Act]:
    return installation.services.audit.acts(account=account_id(email) if email else None, limit=100)


_ACTS: dict[str, Callable[[Services], object]] = {
    "paused": lambda services: services.accounts.pause(ANN),
    "resumed": lambda services: services.accounts.resume(BOB),
    "refreshed": lambda services: services.states.refresh_soon([account_id(ANN)]),
    "disconnected": lambda services: services.accounts.disconnect(ANN),
    "erased": lambda services: services.states.erase([account_id(ANN)]),
    "renamed": lambda services: services.renaming.rename(ANN, "ann@new.example"),
    "keys_rotated": lambda services: services.key_rotation.rotate(progress=lambda _: None),
    "breaker_tried": lambda services: services.breakers.try_now("default"),
}


@pytest.mark.parametrize("action", _ACTS)
def test_an_act_is_recorded_with_its_actor_and_reason(installation: Installation, erin: Services, action: str) -> None:
    installation.sign_in(ANN, BOB)
    installation.services.accounts.pause(BOB)

    _ACTS[action](erin)

    act = _acts(installation)[0]
    assert (act.action, act.user, act.host, act.program, act.reason) == (
        action,
        "erin",
        "desk",
        "token-worker",
        "ticket 7",
    )
    assert act.at == installation.clock()


def test_the_actor_of_an_application_is_its_user_and_program(installation: Installation) -> None:
    installation.sign_in(ANN)

    [act] = _acts(installation)

    assert (act.action, act.account, act.accounts, act.reason) == ("saved", ANN, 1, None)
    assert (act.user, act.host) == (getpass.getuser(), socket.gethostname())
    assert act.program == current_actor().program != ""


def test_many_accounts_changed_at_once_are_one_act(installation: Installation, erin: Services) -> None:
    installation.sign_in(ANN, BOB)
    installation.clock.advance(minutes=1)

    erin.states.pause([account_id(ANN), account_id(BOB)])
    erin.pauses.begin([Group(domain="contoso.com")])

    first, second, *_ = sorted(_acts(installation), key=lambda act: (act.at, act.accounts), reverse=True)
    assert (first.action, first.accounts, first.account) == ("paused", 2, None)
    assert (second.action, second.accounts, second.detail) == ("paused", 0, str(Group(domain="contoso.com")))
    assert [act.account for act in _acts(installation, ANN)] == [ANN, ANN]


def test_what_changes_nothing_is_not_recorded(installation: Installation, erin: Services) -> None:
    installation.sign_in(ANN)
    erin.accounts.pause(ANN)

    erin.accounts.pause(ANN)

    assert [act.action for act in _acts(installation)].count("paused") == 1


def test_the_record_outlives_the_account_without_its_address(installation: Installation, erin: Services) -> None:
    installation.sign_in(ANN)
    erin.states.erase([account_id(ANN)])

    acts = _acts(installation, ANN)

    assert {act.action for act in acts} == {"saved", "disconnected", "erased"}
    assert {act.account for act in acts} == {str(account_id(ANN))}


def test_acts_are_selected_by_time_and_pruned_by_age(installation: Installation) -> None:
    installation.sign_in(ANN)
    installation.clock.advance(days=300)
    installation.sign_in(BOB)
    audit, now = installation.services.audit, installation.clock()

    assert [act.account for act in audit.acts(since=now - DAY, limit=9)] == [BOB]
    assert [act.account for act in audit.acts(limit=1)] == [BOB]
    installation.clock.now += timedelta(days=101)
    audit.prune()
    assert [act.account for act in audit.acts(limit=9)] == [BOB]


@pytest.mark.parametrize("text", ["", "  ", "x" * 501, "\x1b[31m", "see " + "e" * 64])
def test_a_reason_that_cannot_be_stored_is_rejected_without_being_quoted(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_reason(text)
    assert not text.strip() or text not in str(caught.value)


def test_a_reason_is_one_line() -> None:
    assert parse_reason(" ticket 7:\n customer asked ") == "ticket 7: customer asked"
