"""A table of mail credentials, such as Prisma's model ``MailCredentials``, in a database or exported to a file."""

from collections.abc import Iterator
from dataclasses import fields

from worker.db.foreign import ForeignDatabase, squashed
from worker.domain.account import MailServers
from worker.service.moving.sources.source import Fields, Query, Row, Source, Squashed, find_table, plain, utc

_TABLES = ("mailcredentials", "mailcredential", "emailcredentials", "mailaccounts", "mailaccount", "emailaccounts")
_EXPIRY = ("tokenexpiry", "expiresat", "tokenexpiresat", "accesstokenexpiresat", "accesstokenexpires", "expiry")
_SERVERS = tuple(field.name for field in fields(MailServers) if field.name != "login_name")
_NO = (False, "false", "f", 0, "0")


def _query(database: ForeignDatabase, wanted: str | None) -> Query:
    return Query(find_table(database, _TABLES, wanted, "refreshtoken"))


def _accounts(row: Row) -> Iterator[Fields]:
    given = Squashed(row)
    uses_oauth = (
        given.first("useoauth", "isoauth", "oauth") not in _NO
        if given.first("useoauth", "isoauth", "oauth") is not None
        else True
    )
    servers = {name: given.first(squashed(name)) for name in _SERVERS}
    account: Fields = {
        "email": given.first("email", "emailaddress", "mail", "address"),
        "login_name": given.first("loginname", "userprincipalname", "upn"),
        **servers,
    }
    if not uses_oauth:
        yield account | {"use_oauth": False}
        return
    yield account | {
        "refresh_token": plain(given.first("refreshtoken")),
        "access_token": plain(given.first("accesstoken")),
        "expires_at": utc(given.first(*_EXPIRY)),
        "client_id": given.first("clientid"),
    }


SOURCE = Source(_accounts, _query)
