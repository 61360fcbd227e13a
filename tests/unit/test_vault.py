"""The vault: what it seals opens again, for the same account and purpose, under any key at hand, and not otherwise."""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.domain.account import AccountId, account_id
from worker.domain.errors import ConfigurationError, UnreadableSecret
from worker.domain.token import Sealed, Secret
from worker.vault import MasterKey, Purpose, Vault, generate_key, key_id, key_prefix, parse_keys

VECTORS = Path(__file__).parents[1] / "vectors" / "vault"
ANN, BOB = account_id("ann@contoso.com"), account_id("bob@contoso.com")
TOKEN = Secret("a-throwaway-token")
OLD, NEW = MasterKey("old", bytes(32)), MasterKey("new", bytes(range(32)))


@dataclass(frozen=True)
class Vector:
    """A sealed value computed from the format's description, without the code under test."""

    vault: Vault
    account: AccountId
    purpose: Purpose
    nonce: bytes
    plaintext: str
    sealed: Sealed


def cases(file: str) -> list[Any]:
    found = json.loads((VECTORS / file).read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in found]


def vector(case: dict[str, str]) -> Vector:
    return Vector(
        vault=Vault(parse_keys(case["key"])),
        account=AccountId(UUID(case["account"])),
        purpose=Purpose(case["purpose"]),
        nonce=bytes.fromhex(case["nonce"]),
        plaintext=case["plaintext"],
        sealed=Sealed(bytes.fromhex(case["sealed"])),
    )


@pytest.mark.parametrize("case", cases("sealed.json"))
def test_what_was_sealed_long_ago_opens(case: dict[str, str]) -> None:
    """The format is a promise to every row in every database: a change of it must be a new version, not a surprise."""
    golden = vector(case)

    assert golden.vault.open(golden.sealed, golden.account, golden.purpose) == Secret(golden.plaintext)


@pytest.mark.parametrize("case", cases("sealed.json"))
def test_sealing_makes_exactly_the_documented_bytes(case: dict[str, str]) -> None:
    """So that a program in another language can read and write them."""
    golden = vector(case)

    sealed = golden.vault._seal(golden.plaintext.encode(), golden.account, golden.purpose, golden.nonce)

    assert sealed.hex() == golden.sealed.hex()


@pytest.mark.parametrize("case", cases("fingerprints.json"))
def test_a_fingerprint_stays_the_same_for_ever(case: dict[str, str]) -> None:
    """Lines of the ledger are compared across releases."""
    vault = Vault(parse_keys(case["key"]))

    fingerprint = vault.fingerprint(Secret(case["secret"]), AccountId(UUID(case["account"])))

    assert fingerprint == case["fingerprint"]


@given(st.text(), st.sampled_from(Purpose))
def test_what_is_sealed_opens_as_it_was(plain: str, purpose: Purpose) -> None:
    """Any token, of any length and alphabet."""
    vault = Vault([NEW])

    assert vault.open(vault.seal(Secret(plain), ANN, purpose), ANN, purpose) == Secret(plain)


def test_no_two_seals_are_alike() -> None:
    """A repeated nonce under one key would give both plaintexts away."""
    vault = Vault([NEW])

    sealed = {vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN) for _ in range(100)}

    assert len(sealed) == 100


def test_the_plaintext_is_not_in_the_sealed_value() -> None:
    """What it is all about."""
    assert Vault([NEW]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN).count(TOKEN.reveal().encode()) == 0


def test_a_value_opens_for_its_account_only() -> None:
    """Whoever can write the table must not be able to give one mailbox's token to another."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)

    with pytest.raises(UnreadableSecret, match="of this account"):
        vault.open(sealed, BOB, Purpose.ACCESS_TOKEN)


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.REFRESH_TOKEN])
def test_a_value_opens_for_its_purpose_only(purpose: Purpose) -> None:
    """A refresh token moved into the access token's column would be handed to consumers."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.REFRESH_TOKEN)

    with pytest.raises(UnreadableSecret, match=purpose):
        vault.open(sealed, ANN, purpose)


def test_a_single_flipped_bit_is_noticed() -> None:
    """Wherever it is: version, key id, nonce, ciphertext or tag."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)

    for position in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(UnreadableSecret):
            vault.open(Sealed(bytes(damaged)), ANN, Purpose.ACCESS_TOKEN)


def test_a_value_cut_short_or_drawn_out_is_noticed() -> None:
    """At any length: a column that was too narrow, a write that was torn."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)

    for damaged in (*(sealed[:length] for length in range(len(sealed))), sealed + b"\x00", sealed + sealed):
        with pytest.raises(UnreadableSecret):
            vault.open(Sealed(damaged), ANN, Purpose.ACCESS_TOKEN)


@given(st.sampled_from([b"", b"\x01", key_prefix("new")]), st.binary())
def test_no_bytes_at_all_break_the_vault(beginning: bytes, rest: bytes) -> None:
    """They come from stores that others write to: unreadable is an answer, any other error would stop a batch."""
    with pytest.raises(UnreadableSecret):
        Vault([NEW]).open(Sealed(beginning + rest), ANN, Purpose.ACCESS_TOKEN)


def test_a_value_under_a_key_that_is_not_at_hand_names_the_key() -> None:
    """So that the operator knows which one to put back."""
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)

    with pytest.raises(UnreadableSecret, match=r"'old'.*WORKER_ENCRYPTION_KEYS"):
        Vault([NEW]).open(sealed, ANN, Purpose.ACCESS_TOKEN)


def test_another_key_of_the_same_name_does_not_open() -> None:
    """Two installations that both call theirs k1."""
    sealed = Vault([NEW]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)

    with pytest.raises(UnreadableSecret):
        Vault([MasterKey("new", bytes(32))]).open(sealed, ANN, Purpose.ACCESS_TOKEN)


def test_the_newest_key_seals_and_every_key_opens() -> None:
    """During a rotation both kinds of values are there."""
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)
    both = Vault([NEW, OLD])

    assert both.open(sealed, ANN, Purpose.ACCESS_TOKEN) == TOKEN
    assert key_id(both.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)) == both.newest_key_id == "new"


def test_a_rotated_value_needs_the_newest_key_and_no_other() -> None:
    """Afterwards the old key may be thrown away."""
    both = Vault([NEW, OLD])
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.REFRESH_TOKEN)

    rotated = both.rotate(sealed, ANN, Purpose.REFRESH_TOKEN)

    assert (both.needs_rotation(sealed), both.needs_rotation(rotated)) == (True, False)
    assert Vault([NEW]).open(rotated, ANN, Purpose.REFRESH_TOKEN) == TOKEN


def test_a_value_that_does_not_open_is_not_rotated() -> None:
    """It would be replaced by something else, and be lost."""
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.REFRESH_TOKEN)

    with pytest.raises(UnreadableSecret):
        Vault([NEW, OLD]).rotate(sealed, BOB, Purpose.REFRESH_TOKEN)


def test_the_prefix_tells_a_key_from_one_whose_name_begins_alike() -> None:
    """The database finds by it what is left under older keys."""
    sealed = Vault([MasterKey("k10", bytes(32))]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN)

    assert sealed.startswith(key_prefix("k10"))
    assert not sealed.startswith(key_prefix("k1"))


def test_a_fingerprint_matches_two_uses_of_one_token_and_nothing_else() -> None:
    """Not across accounts or keys, and it is too short to learn anything from."""
    vault = Vault([NEW, OLD])
    ours = vault.fingerprint(TOKEN, ANN)

    assert vault.fingerprint(Secret(TOKEN.reveal()), ANN) == ours
    others = [
        vault.fingerprint(TOKEN, BOB),
        vault.fingerprint(Secret("another"), ANN),
        Vault([MasterKey("new", bytes(32))]).fingerprint(TOKEN, ANN),
    ]
    assert ours not in others
    assert len(ours) == len("new:") + 16


def test_a_made_key_is_read_back_and_is_never_made_twice() -> None:
    """What `token-worker keygen` prints goes into the setting as it is."""
    first, second = generate_key("k1"), generate_key("k1")

    [key] = parse_keys(first)
    assert (key.id, len(key.material)) == ("k1", 32)
    assert key not in parse_keys(second)


def test_keys_are_read_newest_first_whatever_the_spaces() -> None:
    """Files end in a line break, and people put one key on a line."""
    new, old = generate_key("new"), generate_key("old")

    assert [key.id for key in parse_keys(f" {new} ,\n{old},\n")] == ["new", "old"]


def encoded(size: int) -> str:
    return base64.b64encode(secrets.token_bytes(size)).decode()


WRONG_KEYS: dict[str, Callable[[], tuple[str, str, str]]] = {
    "nothing": lambda: ("", "", "keygen"),
    "commas": lambda: (" , ,", "", "keygen"),
    "no id": lambda: ((key := encoded(32)), key, "id:base64"),
    "an empty id": lambda: (f":{(key := encoded(32))}", key, "id:base64"),
    "an id with a space": lambda: (f"k 1:{(key := encoded(32))}", key, "id:base64"),
    "an id too long": lambda: (f"{'k' * 33}:{(key := encoded(32))}", key, "id:base64"),
    "no key": lambda: ("k1:", "", "keygen"),
    "a key too short": lambda: (f"k1:{(key := encoded(16))}", key, "keygen"),
    "a key too long": lambda: (f"k1:{(key := encoded(33))}", key, "keygen"),
    "no base64": lambda: (f"k1:{(key := 'hunter2!' * 6)}", key, "keygen"),
    "a character of a word processor": lambda: (f"k1:{(key := encoded(32))}\u2019", key, "keygen"),
    "hexadecimal, no id": lambda: ((key := secrets.token_hex(16)), key, "id:base64"),
    "24 bytes, no id": lambda: ((key := base64.b64encode(b"twenty-four bytes as key").decode()), key, "id:base64"),
    "the second has no id": lambda: (f"{generate_key('k2')},{(key := encoded(32))}", key, "entry 2"),
    "one id twice": lambda: (f"{generate_key('k1')},k1:{(key := encoded(32))}", key, "its own id"),
}


@pytest.mark.parametrize("mistake", WRONG_KEYS)
def test_a_wrong_key_is_refused_with_advice_and_without_showing_it(mistake: str) -> None:
    """The message names the setting and the remedy; it ends in logs and tickets, so no part of a key is in it."""
    text, key, advice = WRONG_KEYS[mistake]()

    with pytest.raises(ConfigurationError) as refusal:
        parse_keys(text)

    message = str(refusal.value)
    assert "WORKER_ENCRYPTION_KEYS" in message
    assert advice in message
    assert not key or key not in message


@pytest.mark.parametrize("name", ["", "k 1", "k:1", "k,1", "k" * 33, "schlüssel"])
def test_no_key_is_made_under_a_name_that_could_not_be_read_back(name: str) -> None:
    """A colon or a comma in it would be taken for the format."""
    with pytest.raises(ConfigurationError, match="key id"):
        generate_key(name)


def test_neither_a_key_nor_a_vault_shows_itself() -> None:
    """They end up in tracebacks and debuggers."""
    key = MasterKey("k1", secrets.token_bytes(32))

    shown = f"{key} {key!r} {[key]} {Vault([key])!r}"

    assert "k1" in shown
    assert repr(key.material)[2:-1] not in shown
    assert base64.b64encode(key.material).decode() not in shown
    assert key.material.hex() not in shown
