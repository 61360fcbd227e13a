"""The roles of Redis and Postgres as `deploy/` grants them, at the servers of the tests."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import psycopg
import redis

from tests.stores import ROOT

PASSWORD = "of-a-role"
ACL_FILE = ROOT / "deploy" / "valkey" / "users.acl"
ROLES_FILE, GRANTS_FILE = (ROOT / "deploy" / "postgres" / name for name in ("roles.sql", "grants.sql"))
OWNER = "token_worker_owner"
_ROLES = (OWNER, "token_worker", "token_worker_reader", "token_worker_exporter")


def acl_rules(namespace: str = "") -> dict[str, list[str]]:
    """The rules of each user, as the file has them; with a namespace, as docs/roles.md says."""
    lines = ACL_FILE.read_text().splitlines()
    if namespace:
        lines = [line.replace("~", f"~{namespace}:").replace("&", f"&{namespace}:") for line in lines]
    return {name: rules for _, name, *rules in (line.split() for line in lines) if name != "default"}


@contextmanager
def redis_users(url: str, namespace: str = "") -> Iterator[dict[str, str]]:
    """The users of the file exist. Yields the URL of each."""
    rules = acl_rules(namespace)
    place = urlsplit(url).netloc.rpartition("@")[2]
    with redis.Redis.from_url(url) as server:
        for name, each in rules.items():
            server.execute_command("ACL", "SETUSER", name, "reset", *each, f">{PASSWORD}")
        server.acl_log_reset()
        try:
            yield {name: f"redis://{name}:{PASSWORD}@{place}/0" for name in rules}
        finally:
            server.acl_deluser(*rules)


def denied(url: str) -> list[str]:
    """The refusals of Redis, each as user, command and object."""
    with redis.Redis.from_url(url, decode_responses=True) as server:
        return [f"{each['username']} {each['context']} {each['reason']} {each['object']}" for each in server.acl_log()]


@contextmanager
def postgres_roles(url: str) -> Iterator[dict[str, str]]:
    """The roles of the files exist in a migrated database, whose tables the owner has. Yields the URL of each."""
    plain = url.replace("+psycopg", "")
    with closing(psycopg.connect(plain, autocommit=True)) as server:
        server.execute(ROLES_FILE.read_text())
        for role in _ROLES:
            server.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        _give_to_owner(server)
    place = plain.rpartition("@")[2]
    urls = {role: f"postgresql://{role}:{PASSWORD}@{place}" for role in _ROLES}
    with closing(psycopg.connect(urls[OWNER], autocommit=True)) as owner:
        owner.execute(GRANTS_FILE.read_text())
    try:
        yield urls
    finally:
        with closing(psycopg.connect(plain, autocommit=True)) as server:
            server.execute(f"REASSIGN OWNED BY {OWNER} TO current_user")
            for role in _ROLES:  # one at a time, because Postgres cannot drop default privileges of two
                server.execute(f"DROP OWNED BY {role}")
            server.execute(f"DROP ROLE {', '.join(_ROLES)}")


def _give_to_owner(server: psycopg.Connection) -> None:
    """As if the owner had run the migrations."""
    server.execute(f"""
        DO $$ DECLARE statement text; BEGIN
            FOR statement IN
                SELECT format('ALTER TABLE %I OWNER TO {OWNER}', relname) FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')
                    -- A sequence of a column goes with its table.
                    AND NOT (relkind = 'S' AND oid IN (SELECT objid FROM pg_depend WHERE deptype IN ('a', 'i')))
                UNION ALL
                SELECT format('ALTER FUNCTION %I OWNER TO {OWNER}', proname) FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace
            LOOP EXECUTE statement; END LOOP;
        END $$
    """)
