"""MSAL's serialized token cache: one document, or one a line."""

from collections.abc import Iterator
from typing import Any

from worker.domain.errors import InvalidInput
from worker.service.moving.sources.source import Fields, Row, Source

_SECTIONS = ("RefreshToken", "Account")


def _accounts(row: Row) -> Iterator[Fields]:
    tokens, accounts = (_values(row.get(section)) for section in _SECTIONS)
    names = {each.get("home_account_id"): each.get("username") for each in accounts}
    for token in tokens:
        # Access tokens stay behind: a cache has some for each resource, and the refresh brings the right one.
        yield {
            "email": names.get(token.get("home_account_id")),
            "refresh_token": token.get("secret"),
            "client_id": token.get("client_id"),
            "obtained_at": token.get("last_modification_time"),
        }


def _values(section: object) -> list[dict[str, Any]]:
    entries = section.values() if isinstance(section, dict) else ()
    return [each for each in entries if isinstance(each, dict)]


def _rows(document: Any) -> Iterator[Row]:
    if not isinstance(document, dict) or "RefreshToken" not in document:
        raise InvalidInput("the file is not MSAL's token cache, which has a field RefreshToken")
    yield document


SOURCE = Source(_accounts, whole_file=_rows)
