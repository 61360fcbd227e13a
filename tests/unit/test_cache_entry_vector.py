"""A value in Redis is read as docs/cache-entry.md describes it, here and in another language."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from worker.cache import Keys
from worker.cache.stores import _parsed
from worker.domain.account import account_id
from worker.domain.cache_entry import decode, encode
from worker.domain.token import Secret
from worker.vault import Purpose, Vault, format_access_keys, parse_access_keys, parse_keys

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "read_entry.mjs"
VECTOR: dict[str, str] = json.loads((ROOT / "tests" / "vectors" / "cache" / "entry.json").read_text())
ANN = account_id(VECTOR["email"])


@pytest.fixture(name="plain")
def _plain() -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(VECTOR["plain"])
    return plain


@pytest.mark.parametrize("keys", [parse_keys(VECTOR["encryption_keys"]), parse_access_keys(VECTOR["access_keys"])])
def test_an_entry_of_an_earlier_release_opens(keys: Any, plain: dict[str, Any]) -> None:
    """It opens with the master key and with a consumer's part of it. Programs in other languages rely on the format."""
    assert Keys().entry(ANN) == VECTOR["redis_key"]
    sealed = _parsed(bytes.fromhex(VECTOR["value"]))
    assert sealed

    text = Vault(keys).open(sealed[1], ANN, Purpose.CACHE_ENTRY)
    entry = decode(text, ANN)

    assert text == Secret(VECTOR["plain"])
    assert entry.token
    assert (sealed[0], entry.version, entry.token.value) == (3, plain["version"], plain["access_token"])
    assert json.loads(encode(entry).reveal()) == plain


def test_access_keys_are_made_as_documented() -> None:
    """A program may derive them itself from the master key."""
    assert format_access_keys(parse_keys(VECTOR["encryption_keys"])) == VECTOR["access_keys"]


def test_sealing_makes_exactly_the_documented_bytes() -> None:
    """Other programs may write entries, too."""
    vault = Vault(parse_access_keys(VECTOR["access_keys"]))

    sealed = vault._seal(VECTOR["plain"].encode(), ANN, Purpose.CACHE_ENTRY, bytes.fromhex(VECTOR["nonce"]))

    assert (b"1 %020d " % 3 + sealed).hex() == VECTOR["value"]


@pytest.mark.parametrize(
    "text", ["token-worker:entry:cc2236a9-035d", "1 00000000000000000003 ", '"noted_at"', '"pop_port"']
)
def test_the_page_contains_its_sample(text: str) -> None:
    """Its sample is the entry of the test vector."""
    page = (ROOT / "docs" / "cache-entry.md").read_text()

    assert text in page
    assert all(f'"{name}"' in page for name in json.loads(VECTOR["plain"]))


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_opens_an_entry(plain: dict[str, Any]) -> None:
    """It needs no library. It does not open an entry with the key of another account."""
    assert _node(VECTOR["email"]).stdout.decode().strip() == VECTOR["redis_key"]
    opened = _node(" Ann@Contoso.COM", "-", value=bytes.fromhex(VECTOR["value"]))
    tampered = _node("bob@contoso.com", "-", value=bytes.fromhex(VECTOR["value"]))

    assert opened.stdout.decode().strip() == plain["access_token"], opened.stderr
    assert tampered.returncode != 0
    assert tampered.stdout == b""


def test_the_example_is_short() -> None:
    """A developer reads it before porting it."""
    assert len(EXAMPLE.read_text().splitlines()) <= 30


def _node(*arguments: str, value: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "WORKER_ACCESS_KEYS": VECTOR["access_keys"]}
    argv = ["node", str(EXAMPLE), *arguments]
    return subprocess.run(argv, input=value, capture_output=True, check=False, timeout=60, env=environment)
