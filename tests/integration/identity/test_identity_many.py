"""Many questions at a time from one thread: each gets its own answer, and none pays for another."""

from collections.abc import Iterable

import jwt
import pytest

from tests.factories import NOW
from tests.integration.identity.asking import opened
from tests.integration.identity.verbatim import Reply, Verbatim, answer
from worker.devkit.emulator import EmulatorServer
from worker.domain.outcome import Misconfigured, Outcome, Refreshed, Scope
from worker.domain.secret import Secret
from worker.identity import Answered, Identity, Question

AUTHORITY = None  # the registration's own


def question(refresh_token: str = "an-old-token", *, authority: str | None = AUTHORITY, scopes: str = "") -> Question:
    return Question(
        refresh_token=Secret(refresh_token), client="default", authority=authority, scopes=tuple(scopes.split())
    )


def ask_all(
    identity: Identity, questions: Iterable[Question], **more: Iterable[tuple[str, str | None]]
) -> list[Outcome | Exception]:
    """The outcomes in the order of the questions."""
    groups = identity.refresh_all(iter(enumerate(questions)), now=lambda: NOW, **more)
    answered: list[Answered[int]] = sorted((one for group in groups for one in group), key=lambda one: one.key)
    return [one.outcome for one in answered]


def test_each_gets_its_own_answer(server: EmulatorServer) -> None:
    """Also with fewer connections than questions."""
    emails = [f"user{number}@contoso.com" for number in range(60)]
    tokens = [server.emulator.enrol(email).refresh_token for email in emails]

    with opened(server.authority, server.ca_bundle, connections=7) as identity:
        outcomes = ask_all(identity, map(question, tokens))

    for email, outcome in zip(emails, outcomes, strict=True):
        assert isinstance(outcome, Refreshed)
        assert jwt.decode(outcome.access_token.reveal(), options={"verify_signature": False})["upn"] == email
        assert outcome.refresh_token == Secret(server.emulator.newest_refresh_token(email))


def test_a_question_is_taken_when_its_turn_comes(server: EmulatorServer) -> None:
    """Whoever asks may change their mind about the rest once the first answers are in."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    taken: list[int] = []

    def questions() -> Iterable[tuple[int, Question]]:
        for number in range(9):
            taken.append(number)
            yield number, question(token)

    with opened(server.authority, server.ca_bundle, connections=3) as identity:
        groups = identity.refresh_all(iter(questions()), now=lambda: NOW)
        first = next(iter(groups))
        assert len(taken) <= 3
        rest = [one for group in groups for one in group]

    assert sorted(one.key for one in [*first, *rest]) == list(range(9))


def test_answers_gather_while_others_are_asked(server: EmulatorServer) -> None:
    """Once it is seen to go well, a group, which costs a commit, is not bounded by the connections there are."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token
    largest = 0

    for _ in range(5):  # more than two must come within a moment, for which the machine may be too busy
        with opened(server.authority, server.ca_bundle, connections=2) as identity:
            groups = [
                len(group) for group in identity.refresh_all(((n, question(token)) for n in range(40)), now=lambda: NOW)
            ]
        assert groups[0] <= 2
        assert sum(groups) == 40
        largest = max(largest, *groups)
        if largest > 2:
            break

    assert largest > 2


def test_one_that_cannot_be_asked_stops_no_other(server: EmulatorServer) -> None:
    """A row that no import would have let in: MSAL refuses its scope before anything is sent."""
    token = server.emulator.enrol("ann@contoso.com").refresh_token

    with opened(server.authority, server.ca_bundle) as identity:
        before, poison, after = ask_all(identity, [question(token), question(scopes="openid"), question(token)])

    assert isinstance(poison, ValueError)
    assert isinstance(before, Refreshed)
    assert isinstance(after, Refreshed)


def test_metadata_are_asked_for_once_per_batch(says: Verbatim, identity: Identity) -> None:
    """Where they cannot be had, a hundred accounts would else wait for a hundred time-outs, one after the other."""
    says.discovery = Reply(answer(404, b""))

    outcomes = ask_all(identity, [question()] * 5, expected=[("default", AUTHORITY)])

    assert outcomes == [Misconfigured(code="discovery_http_404", scope=Scope.TENANT)] * 5
    assert len(says.asked) == 1


@pytest.mark.parametrize("known", [False, True], ids=["each in its turn", "side by side"])
def test_tenants_fail_apart_in_a_batch(says: Verbatim, identity: Identity, known: bool) -> None:
    """A tenant on another host is refused, and costs the others nothing."""
    evil = "https://evil.example/contoso.com"
    expected = [("default", AUTHORITY), ("default", evil)] if known else []

    good, refused = ask_all(identity, [question(), question(authority=evil)], expected=expected)

    assert isinstance(good, Refreshed)
    assert refused == Misconfigured(code="authority_refused", scope=Scope.TENANT)
