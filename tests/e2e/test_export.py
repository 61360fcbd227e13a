"""``token-worker export``: accounts leave with their tokens, and arrive as they were."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.constants import ANN, BOB, CAT
from tests.e2e.deployment import Deployment
from worker.vault import generate_key

_OWN_SCOPES = "https://outlook.office.com/IMAP.AccessAsUser.All"
_LINES: list[dict[str, Any]] = [
    {"email": ANN, "access_token": "a1", "labels": ["customer=1"], "login_name": "ann", "smtp_port": 588},
    {"email": BOB, "scopes": _OWN_SCOPES, "obtained_at": "2026-01-02T03:04:05+00:00"},
    {"email": CAT, "use_oauth": False, "imap_host": "imap.example", "imap_port": 1993},
]
_COLUMNS = """
    SELECT email, client, authority, scopes, use_oauth, imap_host, imap_port, smtp_port, login_name, labels,
           token_expiry, refresh_token_issued_at, status, refresh_due_at IS NULL
    FROM mail_credentials ORDER BY email
"""


@pytest.fixture(name="stored")
def _stored(deployment: Deployment) -> list[tuple[object, ...]]:
    [(now,)] = deployment.sql("SELECT extract(epoch FROM date_trunc('second', now()))::int")
    terms = {"expires_at": now + 3600, "obtained_at": now}
    given = [{"refresh_token": f"1.{line['email']}", **terms, **line} for line in _LINES[:2]] + _LINES[2:]
    done = deployment.cli("import", "-", stdin="\n".join(map(json.dumps, given)))
    assert done.returncode == 0, done.stderr
    return deployment.sql(_COLUMNS)


@pytest.mark.parametrize("way", ["sealed", "plain"])
def test_an_export_arrives_as_it_left(
    deployment: Deployment, stored: list[tuple[object, ...]], tmp_path: Path, way: str
) -> None:
    """In an installation with other keys and an empty database."""
    key, file = tmp_path / "transfer.key", tmp_path / "accounts.jsonl"
    key.write_text(deployment.cli("keygen", "--id", "transfer").stdout)
    how = ["--key-file", str(key)] if way == "sealed" else ["--plain", "--yes"]

    done = deployment.cli("export", "--all", *how, "--to", str(file))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "3 exported, 0 left out\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (f"1.{ANN}" in file.read_text()) == (way == "plain")
    deployment.sql("TRUNCATE mail_credentials")
    deployment.environment["WORKER_ENCRYPTION_KEYS"] = generate_key("other")
    arrived = deployment.cli("import", str(file), *(how if way == "sealed" else []))
    assert (arrived.returncode, arrived.stdout) == (0, "3 imported (3 new, 0 replaced), 0 refused\n")
    assert deployment.sql(_COLUMNS) == stored
    with deployment.services() as services:
        assert services.tokens.get(ANN).value == "a1"


def test_a_sealed_export_opens_with_its_key_alone(
    deployment: Deployment, stored: list[tuple[object, ...]], tmp_path: Path
) -> None:
    """Each line is for its address: a line whose address was changed does not open either."""
    key, other = tmp_path / "transfer.key", tmp_path / "other.key"
    key.write_text(generate_key("transfer"))
    other.write_text(generate_key("transfer"))
    lines = deployment.cli("export", ANN, BOB, "--key-file", str(key)).stdout.splitlines()
    swapped = json.dumps({**json.loads(lines[0]), "email": BOB})

    without = deployment.cli("import", "-", "--dry-run", stdin=lines[0])
    wrong = deployment.cli("import", "-", "--dry-run", "--key-file", str(other), stdin=lines[0])
    moved = deployment.cli("import", "-", "--dry-run", "--key-file", str(key), stdin=f"{swapped}\n{lines[1]}")

    assert without.stderr == "line 1: the account is sealed; name its key with --key-file\n"
    assert wrong.stderr == moved.stderr == "line 1: the sealed account is damaged, or under another key\n"
    assert moved.stdout.startswith("1 would be imported (0 new, 1 replaced)")


def test_an_export_is_recorded(deployment: Deployment, stored: list[tuple[object, ...]]) -> None:
    """Also if its output is lost. An export that was refused is none."""
    deployment.cli("export", ANN, "--plain", stdin="n\n")
    deployment.cli("export", "--all", "--plain", "--yes", "--reason", "we leave")
    lines = deployment.cli("audit", "--json").stdout.splitlines()
    acts = [act for act in map(json.loads, lines) if act["action"] == "exported"]
    assert [(act["accounts"], act["detail"], act["reason"]) for act in acts] == [(3, "in the clear", "we leave")]


def test_an_export_in_the_clear_is_asked_for(deployment: Deployment, stored: list[tuple[object, ...]]) -> None:
    """A terminal or a log would keep the tokens."""
    for arguments, sentence in (
        (["--all"], "say how: --key-file FILE to seal the accounts, or --plain"),
        (["--all", "--plain", "--key-file", "x"], "say how: --key-file FILE to seal the accounts, or --plain"),
        (["--plain"], "say which accounts: addresses, - for standard input, a filter, or --all"),
        (["--plain", "--all"], "there was no answer; add --yes, which does not ask"),
    ):
        done = deployment.cli("export", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1] == f"Error: {sentence}"
    refused = deployment.cli("export", "--all", "--plain", stdin="n\n")
    assert "1." not in refused.stdout


def test_accounts_that_cannot_leave_are_named(
    deployment: Deployment, stored: list[tuple[object, ...]], tmp_path: Path
) -> None:
    """The others are exported."""
    deployment.cli("disconnect", ANN, "--yes")
    deployment.sql("UPDATE mail_credentials SET refresh_token = '\\x0101'::bytea WHERE email = %s", BOB)

    done = deployment.cli("export", "--all", "--plain", "--yes")

    assert done.returncode == 1
    assert [json.loads(line)["email"] for line in done.stdout.splitlines()] == [CAT]
    assert re.fullmatch(f"{ANN}: it has no refresh token\n{BOB}: .*\n1 exported, 2 left out\n", done.stderr)


@pytest.mark.parametrize("content", ["", "no key", "transfer:AAAA", "\xff"])
def test_a_file_without_a_key_is_one_sentence(deployment: Deployment, tmp_path: Path, content: str) -> None:
    key = tmp_path / "key"
    key.write_text(content, "latin-1")
    no_key = "is no key; make one with: token-worker keygen --id transfer"
    for path, sentence in ((key, no_key), (tmp_path / "missing", "No such file")):
        done = deployment.cli("import", "-", "--key-file", str(path))
        assert done.returncode == 1
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1
