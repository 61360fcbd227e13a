"""The speed of an import, and the time that Postgres alone needs for its rows."""

import io
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
from worker.service.moving.files import read_file
from worker.service.moving.importer import Importer


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Imports per second, their share of the rate of a bare COPY, and the bytes of an account in Redis."""

    per_second: float
    of_copy: float
    redis_bytes: float


def enrolment(site: Site, accounts: int, turns: int) -> Enrolment:
    """Import lines through the product's own method, until they are in Postgres and in Redis.

    Each import is followed by a COPY of the rows that it has made, in Postgres's binary format. The COPY neither parses
    and checks nor seals and caches.
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
    """Seconds of the import and of the COPY, each into an empty table."""
    site.sql("TRUNCATE mail_credentials")
    begin = time.monotonic()
    records = read_file(io.BufferedReader(io.BytesIO("\n".join(lines).encode())))
    report = Importer(services.accounts).run(records, reject=lambda *_: None, progress=lambda _: None)
    imported = time.monotonic() - begin
    if report.new != len(lines):
        raise RuntimeError(f"an import has lost lines: {len(lines)} were given, {report.new} are stored")
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
