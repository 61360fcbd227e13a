"""What is wrong with accounts is not held against their app registration, though Microsoft's words might say so."""

from collections.abc import Sequence

from tests.integration.failures.mailboxes import Mailboxes, emails
from worker.domain.credential import Grant, Secret, Status

DAMAGED = emails(40, "damaged.example")


def test_damaged_refresh_tokens_do_not_stop_the_others(mailboxes: Mailboxes) -> None:
    """An import has cut them short: the longest overdue of all, but it is their users who must sign in again."""
    store(mailboxes, DAMAGED, length=512)
    mailboxes.clock.advance(seconds=1)
    mailboxes.sign_in(*emails(10))

    assert mailboxes.refresh_due() == {"claimed": 50, "reauth_required": 40, "refreshed": 10}
    assert mailboxes.breakers() == []
    assert mailboxes.account(DAMAGED[0]).status is Status.ACTIVE

    for _ in range(2):
        mailboxes.clock.advance(minutes=5)
        assert mailboxes.refresh_due() == {"claimed": 40, "reauth_required": 40}
    assert {mailboxes.account(email).status for email in DAMAGED} == {Status.REAUTH_REQUIRED}


def store(mailboxes: Mailboxes, everybody: Sequence[str], *, length: int) -> None:
    """Their users sign in, and of each refresh token so much is stored."""
    tokens = {email: mailboxes.emulator.enrol(email).refresh_token[:length] for email in everybody}
    mailboxes.services.credentials.save(
        [Grant(email=email, refresh_token=Secret(token)) for email, token in tokens.items()]
    )
