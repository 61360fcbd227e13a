"""Nango's connections: its table, or answers of its API (``GET /connections/{id}?refresh_token=true``) in a file."""

from collections.abc import Iterator

from worker.db.foreign import ForeignDatabase
from worker.service.moving.sources.source import (
    Encrypted,
    Fields,
    Query,
    Row,
    Source,
    Squashed,
    claimed_email,
    find_table,
    is_microsoft,
    plain,
    utc,
)


def _query(database: ForeignDatabase, wanted: str | None) -> Query:
    return Query(find_table(database, ("nangoconnections",), wanted, "credentials", "connectionid"))


def _accounts(row: Row) -> Iterator[Fields]:
    given = Squashed(row)
    if not (is_microsoft(given.get("provider")) or is_microsoft(given.get("providerconfigkey"))) or given.get(
        "deleted"
    ):
        return
    credentials = given.get("credentials")
    if not isinstance(credentials, dict) or given.get("credentialsiv"):
        raise Encrypted
    plain(credentials)
    found = Squashed(credentials)
    yield {
        "email": _email(given, found),
        "refresh_token": plain(found.first("refreshtoken")),
        "access_token": plain(found.first("accesstoken")),
        "expires_at": utc(found.first("expiresat")),
    }


def _email(given: Squashed, credentials: Squashed) -> object:
    """The first of these that is an address; which of them an application sets is its own affair."""
    raw, user, tags, metadata = (
        Squashed(each or {})
        for each in (credentials.get("raw"), given.get("enduser"), given.get("tags"), given.get("metadata"))
    )
    candidates = (
        claimed_email(raw.get("idtoken")),
        user.get("email"),
        tags.get("enduseremail"),
        metadata.get("email"),
        given.get("connectionid"),
    )
    return next((each for each in candidates if isinstance(each, str) and "@" in each), None)


SOURCE = Source(_accounts, _query)
