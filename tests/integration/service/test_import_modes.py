"""Options of an import: accounts that are stored already, passwords, hosts, and a trial run."""

import json
from collections.abc import Mapping
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, CAT, HOUR
from tests.integration.imports import import_bytes
from tests.integration.installation import Installation
from worker.client import TokenClient
from worker.domain.account import MICROSOFT
from worker.service.moving.importer import Existing, ImportReport
from worker.vault import Purpose


def _file(*accounts: Mapping[str, object]) -> bytes:
    return "\n".join(json.dumps({"email": ANN, "refresh_token": "theirs", **each}) for each in accounts).encode()


def test_new_replaced_and_repeated_accounts_are_counted_apart(installation: Installation) -> None:
    """An operator compares the numbers with those of the old system."""
    installation.sign_in(ANN)
    report, _ = import_bytes(
        installation.services.accounts, _file({}, {"email": BOB}, {"email": BOB.upper()}, {"email": "x"})
    )
    assert report == ImportReport(new=1, replaced=1, repeated=1, refused=1)


def test_a_trial_run_counts_and_stores_nothing(installation: Installation) -> None:
    """All checks are made."""
    installation.sign_in(ANN)
    before = installation.accounts()
    report, refused = import_bytes(
        installation.services.accounts, _file({}, {"email": BOB}, {"email": CAT, "client": "x"}), dry_run=True
    )
    assert report == ImportReport(new=1, replaced=1, refused=1)
    assert [each.number for each in refused] == [3]
    assert installation.accounts() == before


def test_existing_accounts_can_be_left_as_they_are(installation: Installation) -> None:
    """A repeated import must not bring back a paused account, or an old token."""
    installation.sign_in(ANN)
    installation.services.accounts.pause(ANN)
    before = installation.account()

    for dry_run in (True, False):
        report, _ = import_bytes(
            installation.services.accounts, _file({}, {"email": BOB}), existing=Existing.SKIP, dry_run=dry_run
        )
        assert report == ImportReport(new=1, left=1)

    assert installation.account() == before
    assert installation.account(BOB).version == 1


@pytest.mark.parametrize("field", ["obtained_at", "expires_at"])
@pytest.mark.parametrize("offset", [timedelta(seconds=-1), timedelta(0), timedelta(seconds=1)])
def test_only_a_newer_grant_replaces(installation: Installation, field: str, offset: timedelta) -> None:
    """Both refreshers run side by side until the cut-over, so either may have the newer token."""
    obtained, expires = installation.clock() - HOUR / 2, installation.clock() + HOUR
    first = {"obtained_at": obtained.isoformat(), "expires_at": expires.isoformat(), "access_token": "first"}
    import_bytes(installation.services.accounts, _file(first))
    instant = {"obtained_at": obtained, "expires_at": expires}[field] + offset

    report, _ = import_bytes(
        installation.services.accounts,
        _file({"refresh_token": "second", field: instant.isoformat()}, {"email": BOB}, {}),
        existing=Existing.ONLY_NEWER,
    )

    is_newer = offset > timedelta(0)
    assert report == ImportReport(new=1, replaced=int(is_newer), left=int(not is_newer), refused=1)
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == ("second" if is_newer else "theirs")
    assert installation.account().refresh_token_issued_at == (
        instant if is_newer and field == "obtained_at" else installation.clock() if is_newer else obtained
    )


def test_a_token_refreshed_here_is_newer_than_an_older_file(installation: Installation) -> None:
    """The file was written before the refresh."""
    granted = installation.grant(ANN).refresh_token.reveal()
    import_bytes(installation.services.accounts, _file({"refresh_token": granted}))
    written_at = installation.clock()
    installation.clock.advance(hours=1)
    assert installation.refresh_due()["refreshed"] == 1
    before = installation.account()

    report, _ = import_bytes(
        installation.services.accounts, _file({"obtained_at": written_at.timestamp()}), existing=Existing.ONLY_NEWER
    )

    assert report == ImportReport(left=1)
    assert installation.account() == before


def test_hosts_of_a_line_are_stored_and_others_are_microsofts(installation: Installation) -> None:
    """Ports may be text, as CSV has them. A host that may get no token is refused."""
    file = b"email;refresh_token;imap_host;imapPort\nann@contoso.com;r;imap.other;1993\n"

    _, [bad] = import_bytes(installation.services.accounts, file)
    import_bytes(installation.another_process(mail_hosts="imap.other").accounts, file)

    assert bad.reason.startswith("mail host 'imap.other' is not allowed")
    mail = installation.account().mail
    assert (mail.imap_host, mail.imap_port, mail.smtp_host) == ("imap.other", 1993, MICROSOFT.smtp_host)


def test_an_account_with_a_password_has_hosts_and_no_token(installation: Installation) -> None:
    """The application finds all its mailboxes in one place. It is never due."""
    report, _ = import_bytes(
        installation.services.accounts,
        _file(
            *({"email": each, "refresh_token": "", "use_oauth": False, "imap_host": "imap.x"} for each in (ANN, BOB))
        ),
    )
    assert report == ImportReport(new=2)
    assert installation.refresh_due() == {"leased": 0}
    with TokenClient(installation.settings, utcnow=installation.clock) as client:
        for _ in range(2):  # from the cache, and from Postgres
            loaded = client.load(ANN)
            assert (loaded.use_oauth, loaded.token, loaded.servers.imap_host) == (False, None, "imap.x")
            installation.services.redis.flushdb()


def test_an_account_may_change_between_oauth_and_password(installation: Installation) -> None:
    """In both directions. Its tokens go with the grant."""
    accounts = installation.services.accounts
    installation.sign_in(ANN)
    import_bytes(accounts, _file({"refresh_token": "", "use_oauth": "f"}))
    assert (installation.account().use_oauth, installation.account().refresh_token) == (False, None)
    import_bytes(accounts, _file({"use_oauth": 1}))
    assert installation.account().use_oauth
    assert installation.account().due_at == installation.clock()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"use_oauth": False}, "use_oauth is false, so the account can have no token"),
        ({"use_oauth": "maybe"}, "use_oauth must be true or false"),
        ({"use_oauth": [True]}, "use_oauth must be true or false"),
        ({"imap_host": "a b"}, "imap_host is no host name"),
        ({"imap_host": 1}, "imap_host must be a string"),
        ({"imap_port": 0}, "imap_port must be a number from 1 to 65535"),
        ({"imap_port": "65536"}, "imap_port must be a number from 1 to 65535"),
        ({"imap_port": True}, "imap_port must be a number from 1 to 65535"),
        ({"imap_port": "9" * 5000}, "imap_port must be a number from 1 to 65535"),
        ({"obtained_at": 4_102_444_800}, "obtained_at is in the future"),
        ({"refreshToken": "twice"}, "refresh_token is given twice"),
    ],
)
def test_a_wrong_field_is_named(installation: Installation, fields: dict[str, object], reason: str) -> None:
    report, [bad] = import_bytes(installation.services.accounts, _file(fields))
    assert (report.refused, bad.reason) == (1, reason)


def test_a_token_whose_end_is_unknown_is_left_out_and_counted(installation: Installation) -> None:
    """It cannot be served. The account is refreshed at once."""
    report, _ = import_bytes(installation.services.accounts, _file({"access_token": "a"}))
    assert report == ImportReport(new=1, expiry_missing=1)
    assert installation.account().due_at == installation.clock()
