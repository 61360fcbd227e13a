"""How fast an import is, beside what Postgres alone would need for its rows."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from bench.provider import ACCESS_TOKEN, REFRESH_TOKEN, token
from bench.site import Site
from worker import clock
from worker.bootstrap import Services


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Imports per second, that of the rate of a bare COPY, and what an account weighs in Redis."""

    per_second: float
    of_copy: float
    redis_bytes: float


def enrolment(site: Site, accounts: int, turns: int) -> Enrolment:
    """Lines of an import through the front door, until they are in Postgres and in Redis.

    In turns with one COPY of the very rows that the import has made, as Postgres itself writes them out: nothing is
    read, checked, sealed or cached.
    """
    lines = [_line(number) for number in range(accounts)]
    site.redis().flushdb()
    before = int(site.redis().info("memory")["used_memory"])
    with site.services() as services:
        spent = [_import_and_copy(site, services, lines[turn::turns]) for turn in range(turns)]
    after = int(site.redis().info("memory")["used_memory"])
    return Enrolment(
        per_second=accounts / sum(imported for imported, _ in spent),
        of_copy=statistics.median(copied / imported for imported, copied in spent),
        redis_bytes=(after - before) / accounts,
    )


def _line(number: int) -> str:
    return json.dumps(
        {
            "email": f"import{number}@contoso.test",
            "refresh_token": token(REFRESH_TOKEN),
            "access_token": token(ACCESS_TOKEN),
            "expires_at": clock.utcnow().timestamp() + 3600,
        }
    )


def _import_and_copy(site: Site, services: Services, lines: Sequence[str]) -> tuple[float, float]:
    """Seconds of either, each into an empty table."""
    site.sql("TRUNCATE mail_credentials")
    begin = time.monotonic()
    stored, bad = services.accounts.import_lines(lines, progress=lambda _: None)
    imported = time.monotonic() - begin
    if (stored, bad) != (len(lines), []):
        raise RuntimeError(f"an import has lost lines: {len(lines)} were given, {stored} are stored")
    with psycopg.connect(site.dsn) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY mail_credentials TO STDOUT (FORMAT binary)") as out:
            rows = b"".join(out)
        cursor.execute("TRUNCATE mail_credentials")
        connection.commit()
        begin = time.monotonic()
        with cursor.copy("COPY mail_credentials FROM STDIN (FORMAT binary)") as into:
            into.write(rows)
        connection.commit()
    return imported, time.monotonic() - begin
