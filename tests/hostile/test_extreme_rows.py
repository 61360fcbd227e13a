"""A writer of one row may put the extreme of its type into any column. That account breaks, and no other one."""

from contextlib import closing, suppress
from datetime import timedelta

from tests.constants import BOB
from tests.factories import emails
from tests.integration.installation import Installation
from worker.client import TokenClient
from worker.domain.account import account_id
from worker.domain.audit import Actor
from worker.domain.errors import WorkerError
from worker.domain.selection import Selection
from worker.views import Views

ACTOR = Actor(user="erin", host="desk", program="token-worker")
EXTREMES = [
    "refresh_due_at = '-infinity'",
    "refresh_due_at = 'infinity'",
    "refresh_due_at = '4713-01-01 00:00:00+00 BC'",
    "failing_since = '-infinity', failure_count = 1, failure_kind = 'transient', failure_code = 'x'",
    "failing_since = '294276-01-01', failure_count = 1",
    "struck_at = '-infinity', strikes = 1",
    "lease_id = gen_random_uuid(), lease_until = 'infinity'",
    "failure_count = 2147483647, strikes = 2147483647",
    "version = 9223372036854775807",
    "version = -9223372036854775808",
    "token_expiry = 'infinity', token_obtained_at = '-infinity'",
    "refresh_token_issued_at = 'infinity'",
    "signed_in_at = 'infinity', last_refreshed_at = 'infinity'",
    "last_refreshed_at = '-infinity', signed_in_at = '-infinity'",
    "grant_lifetime = '170000000 years'",
    "status_changed_at = 'infinity', created_at = 'infinity', updated_at = '-infinity'",
    "failure_kind = E'x\\ny', failure_code = E'\\x1b[2J', failure_count = 1, failing_since = now()",
    "failure_kind = NULL, failure_code = NULL, failure_count = 7, failing_since = NULL",
    "scopes = repeat('x ', 1000000)",
    "failure_claims = repeat('x', 10000000)",
    "failure_code = repeat('x', 10000000), failure_count = 1, failing_since = now()",
    "login_name = repeat('x', 10000000)",
    "imap_port = -2147483648, smtp_port = 2147483647",
    "refresh_token = ''::bytea, access_token = ''::bytea",
    "refresh_token = convert_to(repeat('x', 10000000), 'UTF8')",
]


def test_no_value_of_a_row_stops_the_other_accounts(installation: Installation) -> None:
    """Each value is in a row of its own. Batches, reads, lists, figures, events and commands go on."""
    odd = emails(len(EXTREMES))
    installation.sign_in(*odd, BOB, due=True)
    for email, change in zip(odd, EXTREMES, strict=True):
        installation.query(f"UPDATE mail_credentials SET {change} WHERE id = :id", id=account_id(email))
    services = installation.services

    assert services.refresher.batches_due(limit=1) == ["default"]
    installation.refresh_due()
    installation.refresh_due()

    assert installation.account(BOB).version == 2
    services.redis.flushall()
    found = services.tokens.get_many(
        [*odd[3:6], BOB]
    )  # of a changed due time there is no lease, and readers wait for one
    assert not isinstance(found[BOB], WorkerError)
    services.redis.flushall()
    assert BOB in {account.email for account in services.accounts.list()}
    list(services.accounts.list(Selection(expiring_before=installation.clock() + timedelta(days=99))))
    with closing(Views(installation.settings, actor=ACTOR, utcnow=installation.clock)) as views:
        views.status.read()
        views.events.ahead(60)
        for email in odd:
            views.explainer.explain(email)
    services.key_rotation.rotate(progress=lambda _: None)
    with suppress(WorkerError):
        services.key_rotation.check()
    with TokenClient(installation.settings, utcnow=installation.clock) as client:
        client.begin_watch().poll()
        for email in odd:
            with suppress(WorkerError):
                client.save(email, refresh_token=installation.grant(email).refresh_token.reveal())
    installation.sign_in(BOB, due=True)
    installation.refresh_due()
    assert installation.account(BOB).version == 4
