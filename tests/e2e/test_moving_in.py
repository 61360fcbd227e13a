"""docs/moving-in.md, followed literally: each of its commands is run, in the order of the page."""

import os
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.constants import ANN, BOB, CAT
from tests.e2e.deployment import BIN, Deployment
from tests.stores import admin, sibling
from tests.waiting import wait_for
from worker.devkit.stack import Stack
from worker.devkit.stack.programs import find_postgres

PAGE = (Path(__file__).parents[2] / "docs" / "moving-in.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MAIL_CREDENTIALS = """
    CREATE TABLE "MailCredentials" ("id" TEXT PRIMARY KEY, "email" TEXT NOT NULL UNIQUE,
        "use_oauth" BOOLEAN DEFAULT true, "refresh_token" TEXT, "access_token" TEXT,
        "token_expiry" TIMESTAMP(3), "imap_host" TEXT)
"""


class OldApplication:
    """Its table, and its refresher."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self.deployment = deployment
        self.url = url

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def sign_in(self, email: str) -> None:
        grant = self.deployment.emulator.enrol(email, access_token_lifetime=timedelta(minutes=50))
        end = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=50)  # noqa: TID251 - as the application does
        self.sql('DELETE FROM "MailCredentials" WHERE email = %s', email)
        self.sql(
            'INSERT INTO "MailCredentials" VALUES (%s, %s, true, %s, %s, %s)',
            *(uuid4().hex, email, grant.refresh_token, grant.access_token, end),
        )

    def refresh_token(self, email: str) -> str:
        [(token,)] = self.sql('SELECT refresh_token FROM "MailCredentials" WHERE email = %s', email)
        return str(token)


@pytest.fixture(name="old")
def _old(deployment: Deployment, stack: Stack) -> OldApplication:
    name = f"old_{uuid4().hex}"
    with closing(admin(stack)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = sibling(stack.database_url, name).replace("postgresql+psycopg://", "postgresql://")
    application = OldApplication(deployment, url)
    application.sql(MAIL_CREDENTIALS)
    programs = os.pathsep.join(map(str, (BIN, find_postgres().postgres.parent)))
    deployment.environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "OLD_DATABASE_URL": f"{url}?schema=public"}
    return application


def test_the_page_is_followed_literally(deployment: Deployment, old: OldApplication) -> None:
    """From the first import to the way back, with both refreshers at work and a sign-in in between."""
    old.sign_in(ANN)
    old.sign_in(BOB)
    old.sql("INSERT INTO \"MailCredentials\" VALUES ('c', %s, false)", CAT)
    prepare, name, try_out, take, start, prove, cut_over, go_back = BLOCKS

    assert "already up to date" in _run(deployment, prepare.replace("token-worker doctor", ""))
    assert name.startswith("export OLD_DATABASE_URL=postgresql://")
    assert _run(deployment, try_out) == "3 would be imported (3 new, 0 replaced), 0 refused\n"
    assert _run(deployment, take) == "3 imported (3 new, 0 replaced), 0 refused\n"
    worker, beat = (deployment.celery(*line.split()[3:]) for line in start.splitlines())
    deployment.sql("UPDATE mail_credentials SET refresh_due_at = now() WHERE email = %s", ANN)
    wait_for(
        lambda: deployment.sql("SELECT version FROM mail_credentials WHERE email = %s", ANN) == [(2,)],
        about="a refresh",
        processes=[worker, beat],
    )
    proof = _run(deployment, prove)
    assert proof.startswith("3\n")
    assert proof.endswith("served\n")

    old.sign_in(BOB)  # with the old code, after the import
    assert _run(deployment, cut_over) == "1 imported (0 new, 1 replaced), 2 left as they were, 0 refused\n"
    assert deployment.accounts()[ANN].version == 2, "the token that was refreshed here is newer"

    before = old.refresh_token(ANN)
    _run(deployment, go_back)
    assert old.refresh_token(ANN) != before
    for email in (ANN, BOB):
        assert deployment.emulator.accepts(old.refresh_token(email))
    assert not (deployment.directory / "back.jsonl").exists()


def _run(deployment: Deployment, block: str) -> str:
    done = deployment.run(["bash", "-euo", "pipefail", "-c", block])
    assert done.returncode == 0, done.stderr
    return done.stdout
