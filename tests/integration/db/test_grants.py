"""Many grants at once are written by COPY. The stored rows do not differ from those of single statements."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from tests.constants import ANN, BOB, HOUR
from tests.factories import NOW
from tests.integration.db.rows import FAILURE, Rows, failed, grant
from tests.integration.db.test_session import traceback_of
from tests.stores import admin
from tests.waiting import wait_for
from worker.db.address import parameters
from worker.db.grants import SealedGrant
from worker.devkit.stack import Stack
from worker.domain.account import AccountId, MailServers, Status, account_id
from worker.domain.errors import StorageError, Unavailable
from worker.domain.token import Sealed

_FILLER = [grant(f"user{number:02}@contoso.com") for number in range(60)]
_SERVERS = MailServers(
    imap_host="imap", imap_port=1, smtp_host="smtp", smtp_port=2, pop_host="pop", pop_port=65_535, login_name="ann"
)  # fmt: skip
_WAITING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND wait_event_type = 'Lock'"


def _with(sealed: SealedGrant, **terms: object) -> SealedGrant:
    return replace(sealed, grant=replace(sealed.grant, **terms))  # type: ignore[arg-type]  # fields of the grant


_ODD = {
    "nothing optional": grant(access_token=None, obtained_at=None),
    "everything": _with(grant(), authority="https://a/b", client="eu", scopes=("a", "b")),
    "labels": _with(grant(), labels=("customer=42", "eu")),
    "labels taken away": _with(grant(), labels=()),
    "servers of its own": grant(mail=_SERVERS),
    "what COPY as text would take for its own": _with(grant(r"o'b\\n\n\.,\"{}%s:x@contoso.com"), scopes=(r"\N", r"\.")),
    "letters beyond ASCII": grant("żółć.😀@exämple.com"),
    "every byte there is": grant(refresh_token=Sealed(bytes(range(256)) * 40), access_token=Sealed(b"")),
    "a moment with a fraction": grant(due_at=NOW + timedelta(microseconds=1)),
}


@pytest.mark.parametrize("odd", _ODD.values(), ids=_ODD)
def test_a_copied_row_equals_one_stored_by_a_statement(rows: Rows, odd: SealedGrant) -> None:
    """Every column is the same, defaults included."""
    email = odd.grant.email
    rows.save(odd)
    stated = rows.row(email)
    rows.sql("DELETE FROM mail_credentials")

    assert rows.save(*_FILLER, odd) == {each.account_id: 1 for each in (*_FILLER, odd)}

    assert rows.row(email) == stated


def test_new_and_existing_accounts_may_be_in_one_import(rows: Rows) -> None:
    """An import that is repeated after an interruption has both, and resets the accounts that existed."""
    rows.save(grant(mail=_SERVERS), grant(BOB))
    [lease, _] = sorted(rows.lease_due(), key=lambda lease: lease.email)
    rows.persist(failed(lease, status=Status.BLOCKED, failure=FAILURE))
    versions = {email: rows.find(email).version for email in (ANN, BOB)}

    saved = rows.save(*_FILLER, grant(refresh_token=Sealed(b"new"), mail=_SERVERS), grant(BOB), now=NOW + HOUR)

    assert saved == {
        **{each.account_id: 1 for each in _FILLER},
        **{account_id(email): version + 1 for email, version in versions.items()},
    }
    ann = rows.find()
    assert (ann.refresh_token, ann.status, ann.failure, ann.lease_until) == (b"new", Status.ACTIVE, None, None)
    assert ann.mail == _SERVERS


@contextmanager
def _copying(rows: Rows, stack: Stack) -> Iterator[tuple[psycopg.Connection, Future[dict[AccountId, int]]]]:
    """A COPY of many grants waits for a transaction that has stored one of them and has not been committed yet."""
    with psycopg.connect(**parameters(rows.database._url)) as other, ThreadPoolExecutor(1) as pool:
        other.execute(
            "INSERT INTO mail_credentials (id, email, created_at, updated_at) VALUES (%s, %s, now(), now())",
            (account_id(ANN), ANN),
        )
        saving = pool.submit(rows.save, *_FILLER, grant())
        with closing(admin(stack)) as observer:
            wait_for(lambda: observer.execute(_WAITING).fetchone(), about="a COPY that waits")
            yield other, saving


def test_an_account_that_appears_meanwhile_is_replaced(rows: Rows, stack: Stack) -> None:
    """The user of one account signs in while the whole company is imported."""
    with _copying(rows, stack) as (other, saving):
        other.commit()

        assert saving.result() == {**{each.account_id: 1 for each in _FILLER}, account_id(ANN): 2}

    assert rows.find().refresh_token == b"refresh 1"


def test_a_connection_that_dies_while_copying_is_an_outage_and_leaves_nothing(rows: Rows, stack: Stack) -> None:
    """psycopg raises a different exception here. A repeated import stores the group again."""
    with _copying(rows, stack) as (other, saving):
        with closing(admin(stack)) as executioner:
            executioner.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'COPY%'")
        with pytest.raises(Unavailable):
            saving.result()
        other.rollback()

    assert rows.sql("SELECT count(*) FROM mail_credentials") == [(0,)]
    assert len(rows.save(*_FILLER)) == len(_FILLER)


def test_the_error_of_a_rejected_row_does_not_quote_it(rows: Rows) -> None:
    """Postgres quotes the whole line of a COPY in the error's context."""
    with pytest.raises(StorageError) as refusal:
        rows.save(*_FILLER, _with(grant(), email=ANN.upper()))

    assert "email_is_lower" in str(refusal.value)
    assert ANN not in traceback_of(refusal.value).lower()
    assert "Failing row" not in traceback_of(refusal.value)
