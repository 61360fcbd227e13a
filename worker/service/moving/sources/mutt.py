"""Token files of ``mutt_oauth2.py``, one document or one a line. They are usually encrypted by GnuPG."""

from collections.abc import Iterator

from worker.service.moving.sources.source import Fields, Row, Source, Squashed, is_microsoft, plain


def _accounts(row: Row) -> Iterator[Fields]:
    given = Squashed(row)
    if not is_microsoft(given.get("registration") or "microsoft"):
        return
    # The access token stays behind, because its end is written in the local time of an unknown machine.
    yield {
        "email": given.first("email"),
        "refresh_token": plain(given.first("refreshtoken")),
        "client_id": given.first("clientid"),
    }


SOURCE = Source(_accounts)
