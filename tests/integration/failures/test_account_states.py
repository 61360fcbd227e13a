"""Every state an account can end in: what leads there, what does not, and the way back."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest

from tests.factories import TurnedClock
from tests.integration.failures.mailboxes import ANN, BOB, GrantWith, Mailboxes, emails, refusal_with
from worker.bootstrap import Services, bootstrap
from worker.devkit.emulator import oauth_error
from worker.domain.account import Status, account_id
from worker.domain.errors import AccountInactive, BlockedByAdmin, InvalidInput, NeedsUser
from worker.settings import Settings

UNKNOWN = "12345"  # an invalid_grant whose code nobody has seen before
ENDED = {
    "50173": (Status.REAUTH_REQUIRED, NeedsUser),
    "53003": (Status.BLOCKED, BlockedByAdmin),
}


def state(mailboxes: Mailboxes, email: str = ANN) -> tuple[Status, int]:
    [(strikes,)] = mailboxes.query(f"SELECT strikes FROM mail_credentials WHERE email = '{email}'")
    return mailboxes.account(email).status, strikes


def assert_well(mailboxes: Mailboxes, email: str = ANN) -> None:
    """As if nothing had ever been wrong, and with a token in hand."""
    account = mailboxes.account(email)
    assert (account.failure, account.claims, account.lease_until) == (None, None, None)
    assert state(mailboxes, email) == (Status.ACTIVE, 0)
    assert account.due_at is not None
    assert account.due_at > mailboxes.clock.now
    assert mailboxes.services.tokens.get(email).ttl(mailboxes.clock.now) > timedelta(minutes=30)
    assert mailboxes.stored_refresh_token(email) == mailboxes.emulator.newest_refresh_token(email)


@pytest.fixture(name="restarted")
def _restarted(settings: Settings, clock: TurnedClock) -> Iterator[Callable[[], Services]]:
    """A process that has just been started, each time."""
    processes: list[Services] = []

    def restarted() -> Services:
        processes.append(bootstrap(settings, utcnow=clock))
        return processes[-1]

    yield restarted
    for process in processes:
        process.close()


def test_strikes_are_counted_across_processes(mailboxes: Mailboxes, restarted: Callable[[], Services]) -> None:
    """Three unproven signs of a dead grant over ten minutes are proof, whoever got them and whatever was restarted
    in between."""
    mailboxes.sign_in(ANN)
    mailboxes.emulator.add_fault(oauth_error(UNKNOWN), ANN)
    seen = []
    for _ in range(3):
        assert restarted().refresher.refresh_due("default") == {"claimed": 1, "reauth_required": 1}
        seen.append(state(mailboxes))
        assert restarted().refresher.refresh_due("default") == {"claimed": 0}
        mailboxes.clock.advance(minutes=5)

    assert seen == [(Status.ACTIVE, 1), (Status.ACTIVE, 2), (Status.REAUTH_REQUIRED, 3)]


def test_a_good_answer_forgives_strikes(mailboxes: Mailboxes, rival: Services) -> None:
    """It has proved them wrong: the next sign starts from one."""
    mailboxes.sign_in(ANN, access_token_lifetime=timedelta(hours=1))
    for expected in (1, 2, 0, 1, 2):
        mailboxes.emulator.clear_faults()
        if expected:
            mailboxes.emulator.add_fault(oauth_error(UNKNOWN), ANN)
        rival.refresher.refresh_due("default")
        assert state(mailboxes) == (Status.ACTIVE, expected)
        mailboxes.clock.advance(minutes=5 if expected else 60)


def test_other_failures_between_strikes_neither_count_nor_forgive(mailboxes: Mailboxes) -> None:
    """A 503 says nothing about the grant."""
    mailboxes.sign_in(ANN)
    for code in (UNKNOWN, "90033", UNKNOWN, "50196", UNKNOWN):
        mailboxes.emulator.add_fault(oauth_error(code), ANN, times=1)
        mailboxes.refresh_due()
        mailboxes.clock.advance(minutes=34)

    assert state(mailboxes) == (Status.REAUTH_REQUIRED, 3)


def by_sign_in(mailboxes: Mailboxes) -> None:
    mailboxes.sign_in(ANN)
    assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}


def by_hand(mailboxes: Mailboxes) -> None:
    mailboxes.services.on_demand.refresh(account_id(ANN))


def by_resuming(mailboxes: Mailboxes) -> None:
    mailboxes.services.accounts.resume(ANN)
    assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}


def by_the_daily_look(mailboxes: Mailboxes) -> None:
    mailboxes.clock.advance(hours=23, minutes=59)
    assert mailboxes.refresh_due() == {"claimed": 0}
    mailboxes.clock.advance(hours=2.5)
    assert mailboxes.refresh_due() == {"claimed": 1, "refreshed": 1}


@pytest.mark.parametrize("code", ENDED)
@pytest.mark.parametrize("come_back", [by_sign_in, by_hand, by_resuming, by_the_daily_look])
def test_an_account_that_was_given_up_comes_back(
    mailboxes: Mailboxes, rival: Services, code: str, come_back: Callable[[Mailboxes], None]
) -> None:
    """Dead or blocked, Microsoft may change its mind, and an administrator too. Until then consumers are told at once,
    without a question."""
    status, told = ENDED[code]
    mailboxes.sign_in(ANN)
    mailboxes.emulator.add_fault(oauth_error(code), ANN, times=1)
    mailboxes.refresh_due()
    assert mailboxes.account(ANN).status is status

    def read() -> None:
        with pytest.raises(told, match=f"AADSTS{code}"):
            rival.tokens.get(ANN)

    assert mailboxes.asked(read) == 0

    come_back(mailboxes)

    assert_well(mailboxes)


def test_an_account_that_is_still_dead_is_looked_at_once_a_day(mailboxes: Mailboxes) -> None:
    """For weeks: a question a day is cheap, and more would be a nuisance."""
    mailboxes.sign_in(ANN, BOB)
    mailboxes.emulator.add_fault(oauth_error("50173"), ANN)
    mailboxes.emulator.add_fault(oauth_error("53003"), BOB)

    for _ in range(14 * 8):
        mailboxes.refresh_due()
        mailboxes.clock.advance(hours=3)

    asked = mailboxes.emulator.statistics().by_account
    assert 11 <= asked[ANN].requests <= 14
    assert 11 <= asked[BOB].requests <= 14
    assert mailboxes.account(ANN).status is Status.REAUTH_REQUIRED
    assert mailboxes.account(BOB).status is Status.BLOCKED


def test_an_unreadable_account_comes_back_once_it_is_mended(mailboxes: Mailboxes, clock: TurnedClock) -> None:
    """What was stored is damaged: it is set aside and not overwritten, and an operator who has mended it resumes it."""
    mailboxes.sign_in(ANN)
    sealed = mailboxes.account(ANN).refresh_token
    mailboxes.query("UPDATE mail_credentials SET refresh_token = '\\x00'")

    assert mailboxes.refresh_due() == {"claimed": 1}

    account = mailboxes.account(ANN)
    assert (account.status, account.due_at, account.refresh_token) == (Status.UNREADABLE, None, b"\x00")
    assert mailboxes.requests == 0
    clock.advance(days=2)
    assert mailboxes.refresh_due() == {"claimed": 0}
    with pytest.raises(AccountInactive):
        mailboxes.services.tokens.get(ANN)

    mailboxes.query("UPDATE mail_credentials SET refresh_token = :sealed", sealed=sealed)
    by_resuming(mailboxes)
    assert_well(mailboxes)


def test_an_unreadable_account_comes_back_by_a_sign_in_too(mailboxes: Mailboxes) -> None:
    """The key is lost for good: the user brings a new grant, sealed under the key at hand."""
    mailboxes.sign_in(ANN)
    mailboxes.query("UPDATE mail_credentials SET refresh_token = '\\x00'")
    mailboxes.refresh_due()
    assert mailboxes.account(ANN).status is Status.UNREADABLE

    by_sign_in(mailboxes)

    assert_well(mailboxes)


def test_a_paused_account_comes_back_when_it_is_resumed(mailboxes: Mailboxes, rival: Services) -> None:
    """Meanwhile its token is served while it lives, and Microsoft is not asked, however overdue it is."""
    mailboxes.sign_in(ANN, access_token_lifetime=timedelta(hours=1))
    mailboxes.refresh_due()
    token = mailboxes.services.tokens.get(ANN)
    mailboxes.services.accounts.pause(ANN)

    def an_hour() -> None:
        mailboxes.clock.advance(minutes=58)
        rival.refresher.refresh_due("default")
        assert rival.tokens.get(ANN).value == token.value
        mailboxes.clock.advance(minutes=2)
        with pytest.raises(AccountInactive, match="paused"):
            rival.tokens.get(ANN)
        with pytest.raises(AccountInactive, match="paused"):
            rival.on_demand.refresh(account_id(ANN))

    assert mailboxes.asked(an_hour) == 0

    by_resuming(mailboxes)
    assert_well(mailboxes)


def test_a_disconnected_account_comes_back_by_a_sign_in_alone(mailboxes: Mailboxes) -> None:
    """There is nothing left to resume."""
    mailboxes.sign_in(ANN)
    mailboxes.refresh_due()
    mailboxes.services.accounts.disconnect(ANN)
    with pytest.raises(InvalidInput):
        mailboxes.services.accounts.resume(ANN)
    with pytest.raises(AccountInactive, match="disconnected"):
        mailboxes.services.tokens.get(ANN)

    by_sign_in(mailboxes)

    assert_well(mailboxes)


def test_an_answer_about_the_old_grant_does_not_condemn_the_new_one(mailboxes: Mailboxes) -> None:
    """The users sign in while Microsoft refuses the grants before: between claim and answer the rows have moved on."""
    codes = ["50173", "53003", UNKNOWN, "70043", "90033", "50196"]
    users = emails(len(codes))
    mailboxes.sign_in(*users)
    for email, code in zip(users, codes, strict=True):
        mailboxes.emulator.add_fault(refusal_with(code, partial(mailboxes.sign_in, email)), email, times=1)

    mailboxes.refresh_due()

    for email in users:
        account = mailboxes.account(email)
        assert (account.version, account.failure, account.grant_lifetime) == (2, None, None)
        assert state(mailboxes, email) == (Status.ACTIVE, 0)
    assert mailboxes.refresh_due() == {"claimed": len(codes), "refreshed": len(codes)}
    for email in users:
        assert_well(mailboxes, email)


def test_a_consumer_that_met_the_old_grants_end_gets_the_new_grants_token(mailboxes: Mailboxes) -> None:
    """It asked with the old one, and is not told about that: somebody has helped already."""
    mailboxes.sign_in(ANN)
    mailboxes.emulator.add_fault(refusal_with("50173", lambda: mailboxes.sign_in(ANN)), ANN, times=1)

    assert mailboxes.services.tokens.get(ANN).version == 3


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize(("act", "status"), [("pause", Status.PAUSED), ("disconnect", Status.DISCONNECTED)])
def test_what_an_operator_does_meanwhile_stands(mailboxes: Mailboxes, act: str, status: Status, granted: bool) -> None:
    """Neither a refusal nor a new token changes what was decided while the question was under way."""
    mailboxes.sign_in(ANN)

    def operate() -> None:
        getattr(mailboxes.services.accounts, act)(ANN)

    mailboxes.emulator.add_fault(
        GrantWith(meanwhile=operate) if granted else refusal_with("50173", operate), ANN, times=1
    )

    mailboxes.refresh_due()

    account = mailboxes.account(ANN)
    assert (account.status, account.due_at, account.failure) == (status, None, None)


def test_one_dead_account_is_no_news_about_the_others(mailboxes: Mailboxes) -> None:
    """In the same batch, of the same tenant."""
    mailboxes.sign_in(ANN, BOB)
    mailboxes.emulator.revoke(ANN)

    assert mailboxes.refresh_due() == {"claimed": 2, "refreshed": 1, "reauth_required": 1}

    assert_well(mailboxes, BOB)
    with pytest.raises(NeedsUser):
        mailboxes.services.tokens.get(ANN)
