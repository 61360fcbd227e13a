"""Importing many accounts from a file: each line is valid or invalid by itself, and no message quotes a line."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.constants import ANN, BOB, CAT, HOUR
from tests.integration import counting
from tests.integration.imports import Refusal, import_lines, import_records, records
from tests.integration.installation import Installation
from worker.devkit.stack import Stack
from worker.domain.errors import Unavailable
from worker.domain.token import as_text
from worker.vault import Purpose

_SECRET = "1.AVkA-a-refresh-token-nobody-may-see"


def _line(email: object = ANN, **fields: object) -> str:
    return json.dumps({"email": email, "refresh_token": f"{_SECRET}-{email}", **fields})


_BAD = {
    "not JSON": _SECRET,
    "JSON cut short": _line()[:-5],
    "a list": f'["{_SECRET}"]',
    "a string": f'"{_SECRET}"',
    "null": "null",
    "brackets without end": "[" * 100_000,
    "no e-mail": json.dumps({"refresh_token": _SECRET}),
    "no address": _line("ann"),
    "an e-mail of another type": _line([ANN]),
    "no refresh token": json.dumps({"email": ANN, "access_token": _SECRET}),
    "an empty refresh token": _line(refresh_token="", access_token=_SECRET),
    "a refresh token of another type": _line(refresh_token={"value": _SECRET}),
    "a refresh token with half a character": _line(refresh_token=f"{_SECRET}\ud800"),
    "a refresh token with a NUL": _line(refresh_token=f"{_SECRET}\0"),
    "an access token with half a character": _line(access_token="\ud800", expires_at=4_102_444_800),
    "an unknown field": _line(refreshtoken=_SECRET),
    "an unknown registration": _line(client="nobody"),
    "a foreign host": _line(authority="https://evil.example/x"),
    "an authority that is no address": _line(authority="https://[x"),
    "an authority with a NUL": _line(authority="AUTHORITY/a\0b"),
    "an authority with a blank": _line(authority="AUTHORITY/contoso .com"),
    "an authority with a character that is not ASCII": _line(authority="AUTHORITY/contosö.com"),
    "an authority with a query": _line(authority="AUTHORITY/contoso.com?x=y"),
    "an implied scope": _line(scopes="openid"),
    "scopes of another type": _line(scopes=[1]),
    "a scope with a NUL": _line(scopes="a\0b"),
    "a time without a zone": _line(expires_at="2026-03-02T10:00"),
    "a time that is none": _line(expires_at="soon"),
    "a time beyond all years": _line(expires_at=10**30),
    "a truth for a time": _line(expires_at=True),
    "not a number for a time": _line(expires_at=float("nan")),
    "a token for an e-mail": _line(_SECRET),
    "a token for a registration": _line(client=_SECRET),
    "a token for an authority": _line(authority=_SECRET),
    "a token for a label": _line(labels=[_SECRET.upper() + "!"]),
    "labels of another type": _line(labels={"eu": 1}),
    "too many labels": _line(labels=[f"label{number}" for number in range(17)]),
    "a token for a field": _line(**{_SECRET: "refresh_token"}),
}


def _import(installation: Installation, *lines: str) -> tuple[int, list[Refusal]]:
    return import_lines(installation.services.accounts, *lines)


@pytest.mark.parametrize("line", _BAD.values(), ids=_BAD)
def test_a_bad_line_is_reported_by_its_number_and_the_others_are_stored(installation: Installation, line: str) -> None:
    """Users correct a file of thousands line by line. A report that quoted a token would end in tickets and chats."""
    bad = line.replace("AUTHORITY", installation.settings.authority.rpartition("/")[0])

    stored, reported = _import(installation, _line(BOB), bad, _line(CAT))

    assert stored == 2
    assert [each.number for each in reported] == [2]
    assert reported[0].reason
    assert _SECRET not in reported[0].reason
    assert [account.email for account in installation.services.accounts.list()] == [BOB, CAT]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"imap_server": 1, "oauth": 1}, "unknown fields: 'imap_server', 'oauth'; known are "),
        ({_SECRET: 1, "imap_server": 1}, "unknown fields: 'imap_server', 1 more; known are "),
        ({_SECRET: 1}, "unknown fields: 1; known are "),
        ({f"field_{letter}": 1 for letter in "abcdefg"}, "'field_e', 2 more; known are "),
    ],
)
def test_unknown_fields_are_named_unless_they_may_be_tokens(
    installation: Installation, fields: dict[str, int], named: str
) -> None:
    """So that the exporter can be corrected at once."""
    stored, [bad] = _import(installation, _line(**fields), _line(BOB))

    assert stored == 1
    assert named in bad.reason
    assert _SECRET not in bad.reason


def test_a_byte_order_mark_is_no_part_of_the_line(installation: Installation) -> None:
    """Some editors write it; files that are joined have it in the middle."""
    assert _import(installation, f"\ufeff{_line()}", f"\ufeff{_line(BOB)}") == (2, [])


def test_an_array_in_the_middle_is_called_one(installation: Installation) -> None:
    """A file that begins with an array is read as one; elsewhere "not a JSON object" would be misleading."""
    stored, [bad] = _import(installation, _line(), f"[{_line()}, {_line(BOB)}]", _line(CAT))

    assert (stored, bad.number) == (2, 2)
    assert "a JSON array; write one object a line" in bad.reason


def test_bytes_that_are_not_utf_8_are_called_so(installation: Installation) -> None:
    """As a command reads them: with one surrogate for each byte."""
    line = b'{"email": "m\xfcller@contoso.com", "refresh_token": "x"}'.decode(errors="surrogateescape")

    stored, [bad] = _import(installation, line, _line(CAT))

    assert (stored, bad.number, bad.reason) == (1, 1, "not UTF-8; save the file in this encoding")


def test_all_fields_of_a_line_are_stored(installation: Installation) -> None:
    """An export from another system has access tokens, so no refresh is needed."""
    expires_at = installation.clock() + HOUR
    tenant = installation.settings.authority.replace("/common", "/contoso.com")
    line = _line(
        ANN,
        access_token="an-access-token",
        expires_at=expires_at.isoformat(),
        authority=tenant,
        scopes="a b",
        login_name="ann",
        labels=["EU", "customer=42"],
    )

    assert _import(installation, line) == (1, [])

    account = installation.account()
    assert (account.authority, account.scopes, account.expires_at) == (tenant, ("a", "b"), expires_at)
    assert account.mail.login_name == "ann"
    assert account.labels == ("customer=42", "eu")
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == f"{_SECRET}-{ANN}"
    assert installation.services.tokens.get(ANN).value == "an-access-token"
    assert installation.requests == 0


@pytest.mark.parametrize("spelling", ["seconds", "fraction", "Z", "offset"])
def test_usual_formats_of_times_are_accepted(installation: Installation, spelling: str) -> None:
    """Exporters write times in different formats."""
    at = installation.clock() + HOUR
    spelt: dict[str, object] = {
        "seconds": int(at.timestamp()),
        "fraction": at.timestamp() + 0.0,
        "Z": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "offset": (at + timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%S+05:00"),
    }

    _import(installation, _line(ANN, access_token="a", expires_at=spelt[spelling]))

    assert installation.account().expires_at == at


def test_empty_lines_are_skipped(installation: Installation) -> None:
    """Files end with an empty line, and the numbers must match those of an editor."""
    stored, reported = _import(installation, "", _line(ANN), "  ", "x", _line(BOB), "")

    assert stored == 2
    assert [each.number for each in reported] == [4]


def test_of_two_lines_for_one_account_the_last_counts(installation: Installation) -> None:
    """Exports overlap. Within a group and across groups, the later line is the newer one."""
    filler = [_line(f"user{number:03}@contoso.com") for number in range(600)]

    _import(installation, _line(ANN), _line("Ann@Contoso.com", refresh_token="second"), *filler, _line(BOB))
    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == "second"
    _import(installation, _line(ANN, refresh_token="third"), *filler, _line("ANN@contoso.com", refresh_token="fourth"))

    assert installation.stored_secret(Purpose.REFRESH_TOKEN) == "fourth"
    assert len(list(installation.services.accounts.list())) == 602


def test_a_repeated_import_changes_nothing(installation: Installation) -> None:
    """An operator may repeat an import after an interruption."""
    for _ in range(2):
        assert _import(installation, _line(ANN), _line(BOB)) == (2, [])

    assert [account.version for account in installation.services.accounts.list()] == [2, 2]


def test_an_interrupted_import_keeps_the_stored_accounts(installation: Installation, stores: Stack) -> None:
    """The progress shows how far the import got, and the rest raises an error."""
    lines = [_line(f"user{number:03}@contoso.com") for number in range(1000)]
    done = list[int]()

    def interrupted() -> Iterator[str]:
        yield from lines[:500]
        stores.postgres.stop()
        yield from lines[500:]

    with pytest.raises(Unavailable):
        import_records(installation.services.accounts, records(interrupted()), progress=done.append)

    stores.postgres.start()
    assert done == [500]
    assert len(list(installation.services.accounts.list())) == 500


def test_ten_thousand_lines_take_seconds(installation: Installation) -> None:
    """Whole companies are imported at once. A transaction per line would take minutes."""
    lines = [_line(f"user{number:05}@contoso.com") for number in range(10_000)]
    lines[4321] = "nonsense"
    done = list[int]()

    with counting.statements() as statements, counting.commands(installation.services.redis) as commands:
        report, reported = import_records(installation.services.accounts, records(lines), progress=done.append)

    assert 0 < len(statements) <= 200
    assert 0 < commands["evalsha"] <= 200
    assert (report.new, [each.number for each in reported]) == (9_999, [4322])
    assert done == [500] * 20
    assert installation.query("SELECT count(*), count(DISTINCT id), min(version) FROM mail_credentials") == [
        (9_999, 9_999, 1)
    ]


def test_an_import_repeated_after_a_crash_stores_the_rest(installation: Installation, stores: Stack) -> None:
    """Whole groups were stored, and the cache holds only their accounts. The second import stores the rest."""
    lines = [_line(f"user{number:04}@contoso.com") for number in range(1200)]

    def interrupted() -> Iterator[str]:
        yield from lines[:1000]
        stores.postgres.kill()
        yield from lines[1000:]

    with pytest.raises(Unavailable):
        import_records(installation.services.accounts, records(interrupted()))
    stores.postgres.start()
    assert installation.query("SELECT count(*) FROM mail_credentials") == [(1000,)]
    assert len(installation.services.redis.keys("token-worker:entry:*")) == 1000

    assert _import(installation, *lines) == (1200, [])

    assert installation.query("SELECT version, count(*) FROM mail_credentials GROUP BY 1 ORDER BY 1") == [
        (1, 200),
        (2, 1000),
    ]
    for email, version in (("user0000@contoso.com", 2), ("user1199@contoso.com", 1)):
        entry = installation.cached(email)
        assert entry
        assert entry.version == version
        stored = installation.account(email).refresh_token
        assert stored
        assert entry.refresh_token == as_text(stored)


def test_an_import_goes_on_without_redis(installation: Installation, stores: Stack) -> None:
    """The cache is filled from Postgres when Redis is back."""
    stores.valkey.stop()
    end = (installation.clock() + HOUR).timestamp()
    lines = [_line(f"user{number:03}@contoso.com", access_token="a", expires_at=end) for number in range(600)]

    assert _import(installation, *lines) == (600, [])

    stores.valkey.start()
    assert installation.services.tokens.get("user599@contoso.com").value == "a"
    assert installation.cached("user599@contoso.com")
