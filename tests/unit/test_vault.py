"""The vault opens a value that it has sealed for the same account and purpose, under any of its keys."""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.domain.account import MICROSOFT, AccountId, account_id
from worker.domain.binding import Binding, binding
from worker.domain.errors import AlteredAccount, ConfigurationError, UnreadableSecret
from worker.domain.token import Sealed, Secret
from worker.vault import MasterKey, Purpose, Vault, generate_key, key_id, key_prefix, parse_keys

VECTORS = Path(__file__).parents[1] / "vectors" / "vault"
ANN_EMAIL = "ann@contoso.com"
ANN, BOB = account_id(ANN_EMAIL), account_id("bob@contoso.com")
TOKEN = Secret("a-throwaway-token")
TOKENS = (Purpose.ACCESS_TOKEN, Purpose.REFRESH_TOKEN)
TERMS, OTHERS = (binding(ANN_EMAIL, "default", None, (), mail) for mail in (MICROSOFT, replace(MICROSOFT, imap_port=1)))
UNBOUND = Binding(b"")
OLD, NEW = MasterKey("old", bytes(32)), MasterKey("new", bytes(range(32)))


@dataclass(frozen=True)
class Vector:
    """A sealed value computed from the format's description, without the code under test."""

    vault: Vault
    account: AccountId
    purpose: Purpose
    binding: Binding
    nonce: bytes
    plaintext: str
    sealed: Sealed


def cases(file: str) -> list[Any]:
    found = json.loads((VECTORS / file).read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in found]


def terms(of: dict[str, Any] | None) -> Binding:
    if of is None:
        return UNBOUND
    scopes = tuple(of["scopes"].split())
    return binding(of["email"], of["client"], of["authority"], scopes, replace(MICROSOFT, **of["mail"]))


def vector(case: dict[str, Any]) -> Vector:
    return Vector(
        vault=Vault(parse_keys(case["key"])),
        account=AccountId(UUID(case["account"])),
        purpose=Purpose(case["purpose"]),
        binding=terms(case.get("terms")),
        nonce=bytes.fromhex(case["nonce"]),
        plaintext=case["plaintext"],
        sealed=Sealed(bytes.fromhex(case["sealed"])),
    )


@pytest.mark.parametrize("case", [*cases("sealed.json"), *cases("bound.json")])
def test_a_value_of_an_earlier_release_opens(case: dict[str, Any]) -> None:
    """Rows of every database have this format, so a change of it needs a new version. Tokens that are not bound are
    those of releases before the binding."""
    golden = vector(case)
    bound_to = golden.binding or (TERMS if golden.purpose in TOKENS else UNBOUND)

    assert golden.vault.open(golden.sealed, golden.account, golden.purpose, bound_to) == Secret(golden.plaintext)


@pytest.mark.parametrize("case", [case for case in cases("sealed.json") if case.values[0]["purpose"] not in TOKENS])
def test_sealing_makes_exactly_the_documented_bytes(case: dict[str, Any]) -> None:
    """A program in another language can read and write them."""
    golden = vector(case)

    sealed = golden.vault._seal(golden.plaintext.encode(), golden.account, golden.purpose, golden.nonce)

    assert sealed.hex() == golden.sealed.hex()


@pytest.mark.parametrize("case", cases("bound.json"))
def test_a_token_is_bound_by_exactly_the_documented_bytes(case: dict[str, Any]) -> None:
    """The binding must be the same in every release, or no account could be refreshed after an upgrade."""
    golden = vector(case)

    sealed = golden.vault._seal(golden.plaintext.encode(), golden.account, golden.purpose, golden.nonce, golden.binding)

    assert golden.binding.hex() == case["binding"]
    assert sealed.hex() == golden.sealed.hex()


def test_a_token_opens_for_its_terms_only() -> None:
    """The error distinguishes a change of the terms from damage."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.REFRESH_TOKEN, TERMS)

    with pytest.raises(AlteredAccount, match="changed in Postgres beside this program"):
        vault.open(sealed, ANN, Purpose.REFRESH_TOKEN, OTHERS)
    with pytest.raises(UnreadableSecret) as damage:
        vault.open(Sealed(sealed + b"x"), ANN, Purpose.REFRESH_TOKEN, TERMS)
    assert not isinstance(damage.value, AlteredAccount)


def test_a_forged_mark_opens_nothing() -> None:
    """The mark only explains a failure."""
    vault = Vault([NEW])
    sealed, other = (vault.seal(TOKEN, ANN, Purpose.REFRESH_TOKEN, bound_to) for bound_to in (TERMS, OTHERS))
    length = len(key_prefix("new")) + 8

    with pytest.raises(UnreadableSecret):
        vault.open(Sealed(other[:length] + sealed[length:]), ANN, Purpose.REFRESH_TOKEN, OTHERS)
    unmarked = bytes((1, 3)) + b"new" + sealed[length:]
    with pytest.raises(UnreadableSecret):
        vault.open(Sealed(unmarked), ANN, Purpose.REFRESH_TOKEN, OTHERS)


def test_a_token_that_is_not_bound_is_bound_by_a_rotation() -> None:
    """Then no program can open it for other terms."""
    [case] = [case.values[0] for case in cases("sealed.json") if case.id == "a refresh token"]
    golden = vector(case)
    assert golden.vault.needs_rotation(golden.sealed)

    rotated = golden.vault.rotate(golden.sealed, golden.account, golden.purpose, TERMS)

    assert not golden.vault.needs_rotation(rotated)
    with pytest.raises(AlteredAccount):
        golden.vault.open(rotated, golden.account, golden.purpose, OTHERS)


@pytest.mark.parametrize("purpose", Purpose)
def test_tokens_and_nothing_else_are_bound(purpose: Purpose) -> None:
    """A caller that forgets the binding must not seal a token without it."""
    wrong = UNBOUND if purpose in TOKENS else TERMS
    with pytest.raises(ValueError, match="bound"):
        Vault([NEW]).seal(TOKEN, ANN, purpose, wrong)
    with pytest.raises(ValueError, match="bound"):
        Vault([NEW]).open(Sealed(b""), ANN, purpose, wrong)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_mark_may_be_longer_than_any(purpose: Purpose) -> None:
    """The header has up to 255 bytes."""
    sealed = Sealed(bytes((1, 255)) + b"new+" + b"0" * 300)
    with pytest.raises(UnreadableSecret):
        Vault([NEW]).open(sealed, ANN, purpose, TERMS if purpose in TOKENS else UNBOUND)


@pytest.mark.parametrize("case", cases("fingerprints.json"))
def test_a_fingerprint_is_the_same_in_every_release(case: dict[str, str]) -> None:
    """Operators compare lines of the ledger that different releases have written."""
    vault = Vault(parse_keys(case["key"]))

    fingerprint = vault.fingerprint(Secret(case["secret"]), AccountId(UUID(case["account"])))

    assert fingerprint == case["fingerprint"]


@given(st.text(), st.sampled_from(Purpose))
def test_a_sealed_value_opens_unchanged(plain: str, purpose: Purpose) -> None:
    """A token may have any length and alphabet."""
    vault, bound_to = Vault([NEW]), TERMS if purpose in TOKENS else UNBOUND

    assert vault.open(vault.seal(Secret(plain), ANN, purpose, bound_to), ANN, purpose, bound_to) == Secret(plain)


def test_two_seals_of_a_value_differ() -> None:
    """A repeated nonce under one key would reveal both plaintexts."""
    vault = Vault([NEW])

    sealed = {vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS) for _ in range(100)}

    assert len(sealed) == 100


def test_the_plaintext_is_not_in_the_sealed_value() -> None:
    assert Vault([NEW]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS).count(TOKEN.reveal().encode()) == 0


def test_a_value_opens_for_its_account_only() -> None:
    """A user who can write the table must not be able to give one mailbox's token to another."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)

    with pytest.raises(UnreadableSecret, match="of this account"):
        vault.open(sealed, BOB, Purpose.ACCESS_TOKEN, TERMS)


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.REFRESH_TOKEN])
def test_a_value_opens_for_its_purpose_only(purpose: Purpose) -> None:
    """Otherwise consumers would get a refresh token that was moved into the column of the access token."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.REFRESH_TOKEN, TERMS)

    with pytest.raises(UnreadableSecret):
        vault.open(sealed, ANN, purpose, TERMS if purpose in TOKENS else UNBOUND)


def test_a_single_flipped_bit_is_detected() -> None:
    """It may be in the version, the key id, the nonce, the ciphertext or the tag."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)

    for position in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(UnreadableSecret):
            vault.open(Sealed(bytes(damaged)), ANN, Purpose.ACCESS_TOKEN, TERMS)


def test_a_value_of_a_wrong_length_is_detected() -> None:
    """A column may be too narrow, or a write incomplete."""
    vault = Vault([NEW])
    sealed = vault.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)

    for damaged in (*(sealed[:length] for length in range(len(sealed))), sealed + b"\x00", sealed + sealed):
        with pytest.raises(UnreadableSecret):
            vault.open(Sealed(damaged), ANN, Purpose.ACCESS_TOKEN, TERMS)


@given(st.sampled_from([b"", b"\x01", key_prefix("new")]), st.binary())
def test_any_other_bytes_are_unreadable(beginning: bytes, rest: bytes) -> None:
    """Other programs write to the stores, and any other error would stop a batch."""
    with pytest.raises(UnreadableSecret):
        Vault([NEW]).open(Sealed(beginning + rest), ANN, Purpose.ACCESS_TOKEN, TERMS)


def test_the_error_for_a_missing_key_names_the_key() -> None:
    """The operator has to restore that key."""
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)

    with pytest.raises(UnreadableSecret, match=r"'old'.*WORKER_ENCRYPTION_KEYS"):
        Vault([NEW]).open(sealed, ANN, Purpose.ACCESS_TOKEN, TERMS)


def test_another_key_of_the_same_name_does_not_open() -> None:
    """Two installations may both have a key k1."""
    sealed = Vault([NEW]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)

    with pytest.raises(UnreadableSecret):
        Vault([MasterKey("new", bytes(32))]).open(sealed, ANN, Purpose.ACCESS_TOKEN, TERMS)


def test_the_newest_key_seals_and_every_key_opens() -> None:
    """During a rotation there are values of both keys."""
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)
    both = Vault([NEW, OLD])

    assert both.open(sealed, ANN, Purpose.ACCESS_TOKEN, TERMS) == TOKEN
    assert key_id(both.seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)) == both.newest_key_id == "new"


def test_a_rotated_value_needs_the_newest_key_and_no_other() -> None:
    """Afterwards the operator may remove the old key."""
    both = Vault([NEW, OLD])
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.REFRESH_TOKEN, TERMS)

    rotated = both.rotate(sealed, ANN, Purpose.REFRESH_TOKEN, TERMS)

    assert (both.needs_rotation(sealed), both.needs_rotation(rotated)) == (True, False)
    assert Vault([NEW]).open(rotated, ANN, Purpose.REFRESH_TOKEN, TERMS) == TOKEN


def test_a_value_that_does_not_open_is_not_rotated() -> None:
    """Its replacement would be wrong, and the value lost."""
    sealed = Vault([OLD]).seal(TOKEN, ANN, Purpose.REFRESH_TOKEN, TERMS)

    with pytest.raises(UnreadableSecret):
        Vault([NEW, OLD]).rotate(sealed, BOB, Purpose.REFRESH_TOKEN, TERMS)


def test_the_prefix_of_a_key_does_not_match_a_longer_key_id() -> None:
    """By the prefix, the database finds the values under older keys."""
    sealed = Vault([MasterKey("k10", bytes(32))]).seal(TOKEN, ANN, Purpose.ACCESS_TOKEN, TERMS)

    assert sealed.startswith(key_prefix("k10"))
    assert not sealed.startswith(key_prefix("k1"))


def test_two_uses_of_one_token_have_the_same_fingerprint() -> None:
    """Fingerprints of other accounts or keys differ. They are too short to reveal a token."""
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


def test_a_generated_key_can_be_parsed_and_is_unique() -> None:
    """The setting takes the output of `token-worker keygen` unchanged."""
    first, second = generate_key("k1"), generate_key("k1")

    [key] = parse_keys(first)
    assert (key.id, len(key.material)) == ("k1", 32)
    assert key not in parse_keys(second)


def test_spaces_and_line_breaks_between_keys_are_ignored() -> None:
    """Files end in a line break, and some operators write one key per line."""
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
def test_the_error_for_a_wrong_key_gives_advice_and_does_not_show_the_key(mistake: str) -> None:
    """The message names the setting. It may get into logs and tickets, so it contains no part of a key."""
    text, key, advice = WRONG_KEYS[mistake]()

    with pytest.raises(ConfigurationError) as refusal:
        parse_keys(text)

    message = str(refusal.value)
    assert "WORKER_ENCRYPTION_KEYS" in message
    assert advice in message
    assert not key or key not in message


@pytest.mark.parametrize("name", ["", "k 1", "k:1", "k,1", "k" * 33, "schlüssel"])
def test_no_key_is_generated_under_a_name_that_cannot_be_parsed(name: str) -> None:
    """A colon or a comma in a name would count as part of the format."""
    with pytest.raises(ConfigurationError, match="key id"):
        generate_key(name)


def test_the_repr_of_a_key_and_of_a_vault_shows_no_key() -> None:
    """Tracebacks and debuggers print it."""
    key = MasterKey("k1", secrets.token_bytes(32))

    shown = f"{key} {key!r} {[key]} {Vault([key])!r}"

    assert "k1" in shown
    assert repr(key.material)[2:-1] not in shown
    assert base64.b64encode(key.material).decode() not in shown
    assert key.material.hex() not in shown
