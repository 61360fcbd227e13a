"""The floor: a plain loop in one thread, without MSAL, Celery, ORM and event loop.

It does what the worker must do. It leases accounts in the same way, sends the same form over the same HTTP client
(libcurl, many requests at a time, connections kept), and seals in the same way. Per batch it sends one update and one
insert into the ledger with unnest, and one pipeline to Redis. Leases, ledger lines and entries contain only the fields
that a refresh needs. There is no error handling, no breaker, no limit and no log. All requests of a batch are in flight
before the first response is read, so a slow provider costs little CPU. With the worker's own optimizations it could be
faster still; docs/benchmarks.md has the figures.

Run ``python -m bench.floor`` with the worker's settings. Several processes share the accounts.
"""

import base64
import json
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import psycopg
import redis

from worker.domain.account import DEFAULT_CLIENT, MICROSOFT, AccountId
from worker.domain.binding import Binding, binding
from worker.domain.http import HttpResponse
from worker.domain.policy import keyed_fraction
from worker.domain.token import Sealed, Secret
from worker.identity.curl import CurlPool, CurlSession, HttpRequest
from worker.settings import Settings, load
from worker.vault import Purpose, Vault

_LEASE = timedelta(seconds=150)
_BATCH_GROWTH = 25  # accounts; each batch has so many more than the one before, up to the limit
_HEADERS = ("Accept: application/json", "Content-Type: application/x-www-form-urlencoded")

_CLAIM = """
    WITH due AS (
        SELECT ctid FROM mail_credentials
        WHERE client = 'default' AND refresh_due_at <= %(now)s AND (lease_id IS NULL OR lease_until <= %(now)s)
        ORDER BY refresh_due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE mail_credentials AS c SET lease_id = %(lease_id)s, lease_until = %(lease_until)s
    FROM due WHERE c.ctid = due.ctid RETURNING c.id, c.email, c.refresh_token, c.version
"""
_PERSIST = """
    UPDATE mail_credentials AS c
    SET access_token = n.access_token, token_obtained_at = %(now)s, token_expiry = %(expires_at)s,
        refresh_token = n.refresh_token, refresh_token_issued_at = %(now)s,
        last_refreshed_at = %(now)s, version = c.version + 1,
        status = 'active', refresh_due_at = n.due_at, lease_id = NULL, lease_until = NULL,
        failure_kind = NULL, failure_code = NULL, failure_count = 0, failing_since = NULL,
        strikes = 0, struck_at = NULL, updated_at = %(now)s
    FROM unnest(%(ids)b::uuid[], %(versions)b::bigint[], %(access_tokens)b::bytea[], %(refresh_tokens)b::bytea[],
                %(due_ats)b::timestamptz[])
        AS n(id, version, access_token, refresh_token, due_at)
    WHERE c.id = n.id AND c.version = n.version AND c.lease_id = %(lease_id)s
"""
_RECORD = """
    INSERT INTO refresh_successes (at, client, trigger, refreshes)
    VALUES (%(now)s, 'default', 'schedule', %(refreshes)b::bigint[])
"""


class Floor:
    """One process of the floor."""

    def __init__(self, settings: Settings, limit: int) -> None:
        self._vault = Vault(settings.keys)
        self._postgres = psycopg.connect(settings.database_url.get_secret_value().replace("+psycopg", ""))
        self._redis = redis.Redis.from_url(settings.redis_url.get_secret_value())
        self._pool = CurlPool(ca_bundle=settings.ca_bundle, connections=limit)
        self._limit = limit
        self._batch = 0
        self._url = f"{settings.authority}/oauth2/v2.0/token"
        secret = settings.client_secret
        self._form = {
            "client_id": settings.client_id,
            "client_secret": secret and secret.get_secret_value(),
            "grant_type": "refresh_token",
            "scope": f"offline_access {settings.scopes} profile openid",
            "client_info": 1,
        }

    def work(self) -> None:
        """Refresh one batch. The first are small, because a hundred TLS handshakes at once may take too long."""
        self._batch = min(self._limit, self._batch + _BATCH_GROWTH)
        now, lease_id = datetime.now(UTC), uuid4()
        with self._postgres.transaction():
            wanted = {"now": now, "limit": self._batch, "lease_id": lease_id, "lease_until": now + _LEASE}
            rows = self._postgres.execute(_CLAIM, wanted).fetchall()
        if not rows:
            time.sleep(0.1)
            return
        tokens = [self._vault.open(Sealed(row[2]), row[0], Purpose.REFRESH_TOKEN, _binding(row[1])) for row in rows]
        responses = self._request(tokens)
        self._store(rows, responses, lease_id, now)

    def _request(self, tokens: list[Secret]) -> list[dict[str, Any]]:
        responses: list[dict[str, Any]] = [{} for _ in tokens]
        with CurlSession[int](self._pool) as session:
            for number, token in enumerate(tokens):
                form = urlencode({**self._form, "refresh_token": token.reveal()})
                session.start(number, HttpRequest(self._url, _HEADERS, form))
            while session:
                for transfer in session.wait(60):
                    assert isinstance(transfer.result, HttpResponse), transfer.result
                    responses[transfer.key] = json.loads(transfer.result.body)
        return responses

    def _store(self, rows: list[Any], responses: list[dict[str, Any]], lease_id: UUID, now: datetime) -> None:
        seal, ids = self._vault.seal, [AccountId(row[0]) for row in rows]
        new = [Secret(response["refresh_token"]) for response in responses]
        bindings = [_binding(row[1]) for row in rows]
        sealed = [
            seal(token, account, Purpose.REFRESH_TOKEN, bound_to)
            for account, token, bound_to in zip(ids, new, bindings, strict=True)
        ]
        lifetime = timedelta(seconds=responses[0]["expires_in"])
        values = {
            "now": now,
            "expires_at": now + lifetime,
            "lease_id": lease_id,
            "ids": ids,
            "versions": [row[3] for row in rows],
            "access_tokens": [
                seal(Secret(response["access_token"]), account, Purpose.ACCESS_TOKEN, bound_to)
                for account, response, bound_to in zip(ids, responses, bindings, strict=True)
            ],
            "refresh_tokens": sealed,
            "due_ats": [now + lifetime * (0.5 + 0.2 * keyed_fraction(row[0], row[3] + 1)) for row in rows],
            "refreshes": [int.from_bytes(account.bytes[:6], signed=True) << 16 | 1 for account in ids],
        }
        with self._postgres.transaction():
            self._postgres.execute(_PERSIST, values)
            self._postgres.execute(_RECORD, values)
        self._publish(rows, responses, sealed, (now + lifetime).timestamp())

    def _publish(
        self, rows: list[Any], responses: list[dict[str, Any]], sealed: list[Sealed], expires_at: float
    ) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for (account, email, _, version), response, refresh_token in zip(rows, responses, sealed, strict=True):
            entry = {
                "email": email,
                "version": version + 1,
                "access_token": response["access_token"],
                "expires_at": expires_at,
                "refresh_token": base64.b64encode(refresh_token).decode(),
            }
            value = self._vault.seal(Secret(json.dumps(entry)), account, Purpose.CACHE_ENTRY)
            pipeline.set(f"floor:entry:{account}", value, px=86_400_000)
        pipeline.execute()


def _binding(email: str) -> Binding:
    """Of an account with the default app registration, its scopes and Microsoft's mail servers."""
    return binding(email, DEFAULT_CLIENT, None, (), MICROSOFT)


def main() -> None:
    floor = Floor(load(Settings), int(sys.argv[1]))
    stopping = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stopping.set())
    while not stopping.is_set():
        floor.work()


if __name__ == "__main__":
    main()
