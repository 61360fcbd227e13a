"""The tokens of django-allauth, in its tables or in the file of ``manage.py dumpdata``."""

from collections.abc import Iterable, Iterator
from typing import Any

from worker.db.foreign import ForeignDatabase, Join
from worker.domain.errors import InvalidInput
from worker.service.moving.sources.source import (
    Fields,
    Query,
    Row,
    Source,
    Squashed,
    find_table,
    is_microsoft,
    plain,
    utc,
)

_DUMP = "the file is no dump; write one with: manage.py dumpdata socialaccount"


def _query(database: ForeignDatabase, wanted: str | None) -> Query:
    tokens = find_table(database, ("socialaccountsocialtoken",), wanted, "tokensecret")
    accounts = find_table(database, ("socialaccountsocialaccount",), None, "extradata")
    apps = find_table(database, ("socialaccountsocialapp",), None, "clientid")
    return Query(
        tokens,
        (
            Join("account", accounts, "id", "base", tokens.columns["accountid"]),
            Join("app", apps, "id", "base", tokens.columns["appid"]),
        ),
    )


def _accounts(row: Row) -> Iterator[Fields]:
    account, app = Squashed(row.get("account") or {}), Squashed(row.get("app") or {})
    if not is_microsoft(account.get("provider")):
        return
    profile = Squashed(account.get("extradata") or {})
    principal = profile.first("userprincipalname")
    email = profile.first("mail", "email") or principal
    yield {
        "email": email,
        "login_name": principal if principal and email and principal.lower() != email.lower() else None,
        "refresh_token": plain(row.get("token_secret")),
        "access_token": plain(row.get("token")),
        "expires_at": utc(row.get("expires_at")),
        "client_id": app.first("clientid"),
    }


def _dumped(document: Any) -> Iterable[Row]:
    """The rows of a dump, joined as the query does."""
    if not isinstance(document, list):
        raise InvalidInput(_DUMP)
    models: dict[str, dict[Any, Row]] = {}
    for each in document:
        if isinstance(each, dict) and isinstance(each.get("fields"), dict):
            models.setdefault(str(each.get("model")), {})[str(each.get("pk"))] = each["fields"]
    accounts, apps = models.get("socialaccount.socialaccount", {}), models.get("socialaccount.socialapp", {})
    for token in models.get("socialaccount.socialtoken", {}).values():
        yield {**token, "account": accounts.get(str(token.get("account"))), "app": apps.get(str(token.get("app")))}


SOURCE = Source(_accounts, _query, whole_file=_dumped)
