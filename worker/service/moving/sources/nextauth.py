"""The table ``Account`` of NextAuth, Auth.js or Better Auth, joined with its users, or exported to a file."""

from collections.abc import Iterator

from worker.db.foreign import ForeignDatabase, Join
from worker.service.moving.sources.source import (
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
    accounts = find_table(database, ("account", "accounts"), wanted, "refreshtoken", "userid")
    users = find_table(database, ("user", "users"), None, "id", "email")
    return Query(accounts, (Join("user", users, users.columns["id"], "base", accounts.columns["userid"]),))


def _accounts(row: Row) -> Iterator[Fields]:
    given = Squashed(row)
    if not is_microsoft(given.first("provider", "providerid")):
        return
    user = given.get("user")
    yield {
        # An application may let users sign in by another address than the mailbox's.
        "email": claimed_email(given.first("idtoken")) or (user or {}).get("email") or given.first("email"),
        "refresh_token": plain(given.first("refreshtoken")),
        "access_token": plain(given.first("accesstoken")),
        "expires_at": utc(given.first("expiresat", "accesstokenexpiresat")),
    }


SOURCE = Source(_accounts, _query)
