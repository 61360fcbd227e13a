"""How a source is described, and the parts that several sources share."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.db.foreign import ForeignDatabase, Join, Table, squashed
from worker.domain.errors import InvalidInput

Row = Mapping[str, Any]
Fields = dict[str, object]

#: Begins of values that are encrypted: of Fernet, Prisma's field encryption, OpenSSL and CryptoJS, sops, and of bytes.
_ENCRYPTED = re.compile(
    r"gAAAAA|v\d\.aesgcm|U2FsdGVkX1|ENC\[|enc:|\\x|k\d+:|-----BEGIN PGP|\{\"(iv|ciphertext|encrypted)"
)
_ENCRYPTED_KEYS = {"iv", "ciphertext", "encrypted", "encrypteddata", "encryptedcredentials"}
_PROVIDERS = re.compile(r"microsoft|azure|entra|outlook|office|exchange", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Query:
    """The table of the accounts, and the tables that its rows are joined with."""

    table: Table
    joins: tuple[Join, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Another product. ``accounts`` makes the fields of an import of a row, of a database or of a file.

    ``query`` finds the tables; the second argument is a table that the operator has named. None: files only.
    ``whole_file``: the file is one JSON document, or one a line, of which this makes rows.
    """

    accounts: Callable[[Row], Iterable[Fields]]
    query: Callable[[ForeignDatabase, str | None], Query] | None = None
    whole_file: Callable[[Any], Iterable[Row]] | None = None


class Squashed(dict[str, Any]):
    """A row whose columns are found by any spelling of their names."""

    def __init__(self, row: Row) -> None:
        super().__init__({squashed(name): value for name, value in row.items()})

    def first(self, *names: str) -> Any:
        """The value of the first of these columns that has one."""
        return next((self[name] for name in names if self.get(name) not in (None, "")), None)


class Encrypted(InvalidInput):
    """A token is encrypted by the other product. Decrypt the tokens there, and import them as CSV or JSON."""

    def __init__(self) -> None:
        super().__init__("the token is encrypted by the other product; decrypt it there, and import it as CSV or JSON")


def plain(token: object) -> object:
    """The token. Raises Encrypted."""
    if isinstance(token, str) and _ENCRYPTED.match(token):
        raise Encrypted
    if isinstance(token, Mapping) and _ENCRYPTED_KEYS & set(Squashed(token)):
        raise Encrypted
    return token


def utc(instant: object) -> object:
    """The instant; without an offset it is in UTC, as Prisma and Django store it."""
    if (
        isinstance(instant, str)
        and re.match(r"\d{4}-\d\d-\d\d[T ]", instant)
        and not re.search(r"[+-]\d\d(:?\d\d)?$|Z$", instant)
    ):
        return f"{instant}Z"
    return instant


def is_microsoft(provider: object) -> bool:
    """Whether a provider's name, as applications choose it, means Microsoft."""
    return isinstance(provider, str) and _PROVIDERS.search(provider) is not None


def claimed_email(id_token: object) -> str | None:
    """The address that an id token names. Its signature is not checked: the other product has done that."""
    parts = id_token.split(".") if isinstance(id_token, str) else []
    if len(parts) != 3:  # noqa: PLR2004 - header, payload and signature
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    given = Squashed(claims) if isinstance(claims, dict) else Squashed({})
    named = given.first("email", "preferredusername", "upn")
    return named if isinstance(named, str) and "@" in named else None


def find_table(database: ForeignDatabase, names: Iterable[str], wanted: str | None, *columns: str) -> Table:
    """The first table with one of the names (``squashed``) and with these columns.

    ``wanted`` is the operator's choice instead: a name, or schema.name.
    """
    tables = database.tables()
    able = [table for table in tables if all(column in table.columns for column in columns)]
    if wanted is not None:
        found = [table for table in tables if wanted in (table.name, f"{table.schema}.{table.name}")]
    else:
        found = [table for name in names for table in able if squashed(table.name) == name]
    if found:
        return found[0]
    others = ", ".join(f"{table.schema}.{table.name}" for table in tables if "refreshtoken" in table.columns)
    missing = wanted if wanted is not None else " or ".join(names)
    msg = f"no table {missing}; name it with --table" + (f" ({others}?)" if others else "")
    raise InvalidInput(msg)
