"""Accounts of other products, as their own libraries and documents make them, are imported and refreshed."""

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msal
import psycopg
import pytest
import requests

from tests.constants import ANN, BOB, CAT, HOUR
from tests.integration.imports import Refusal, import_records
from tests.integration.installation import Installation
from worker.devkit.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Grant
from worker.domain.errors import InvalidInput, Unavailable, WorkerError
from worker.service.moving.importer import ImportReport
from worker.service.moving.sources.reading import SOURCES, open_database, read_source_file
from worker.vault import Purpose

CLIENTS = {DEFAULT_CLIENT_ID: "default"}

# As `prisma migrate` writes it for DateTime, String? and Boolean; the second as the pg adapter of Auth.js documents it.
PRISMA = """
    CREATE TABLE "MailCredentials" ("id" TEXT PRIMARY KEY, "email" TEXT NOT NULL,
        "use_oauth" BOOLEAN NOT NULL DEFAULT true, "refresh_token" TEXT, "access_token" TEXT,
        "token_expiry" TIMESTAMP(3), "imap_host" TEXT, "imap_port" INTEGER,
        "password" TEXT, "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP)
"""
CAMEL_PRISMA = """
    CREATE SCHEMA mail; CREATE TABLE mail."mail_accounts" ("id" SERIAL PRIMARY KEY, "emailAddress" TEXT NOT NULL,
        "useOAuth" BOOLEAN, "refreshToken" TEXT, "accessToken" TEXT, "expiresAt" BIGINT, "imapHost" TEXT)
"""
NEXTAUTH_PRISMA = """
    CREATE TABLE "User" ("id" TEXT PRIMARY KEY, "name" TEXT, "email" TEXT UNIQUE, "emailVerified" TIMESTAMP(3));
    CREATE TABLE "Account" ("id" TEXT PRIMARY KEY, "userId" TEXT NOT NULL, "type" TEXT, "provider" TEXT NOT NULL,
        "providerAccountId" TEXT NOT NULL, "refresh_token" TEXT, "access_token" TEXT, "expires_at" INTEGER,
        "token_type" TEXT, "scope" TEXT, "id_token" TEXT, "session_state" TEXT)
"""
AUTHJS_PG = """
    CREATE TABLE users (id SERIAL PRIMARY KEY, name VARCHAR(255), email VARCHAR(255), "emailVerified" TIMESTAMPTZ);
    CREATE TABLE accounts (id SERIAL PRIMARY KEY, "userId" INTEGER NOT NULL, type VARCHAR(255) NOT NULL,
        provider VARCHAR(255) NOT NULL, "providerAccountId" VARCHAR(255) NOT NULL, refresh_token TEXT,
        access_token TEXT, expires_at BIGINT, id_token TEXT, scope TEXT, session_state TEXT, token_type TEXT)
"""
BETTER_AUTH = """
    CREATE TABLE "user" (id TEXT PRIMARY KEY, name TEXT, email TEXT UNIQUE, "emailVerified" BOOLEAN);
    CREATE TABLE account (id TEXT PRIMARY KEY, "accountId" TEXT, "providerId" TEXT, "userId" TEXT, "accessToken" TEXT,
        "refreshToken" TEXT, "idToken" TEXT, "accessTokenExpiresAt" TIMESTAMPTZ, scope TEXT)
"""
NANGO = """
    CREATE SCHEMA nango; CREATE TABLE nango._nango_connections (id SERIAL PRIMARY KEY, provider_config_key VARCHAR(255),
        connection_id VARCHAR(255), credentials JSONB, environment_id INTEGER, metadata JSONB, credentials_iv TEXT,
        credentials_tag VARCHAR(255), deleted BOOLEAN DEFAULT false, created_at TIMESTAMPTZ DEFAULT now())
"""


class Foreign:
    """Another product's database or file, and the import of it."""

    def __init__(self, installation: Installation, url: str) -> None:
        self.installation = installation
        self.url = url

    def sql(self, *statements: str) -> None:
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            for statement in statements:
                connection.execute(statement)

    def insert(self, table: str, **values: Any) -> None:
        columns = ", ".join(f'"{name}"' for name in values)
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            marks = ", ".join("%s" for _ in values)
            connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))

    def read(self, source: str, *, table: str | None = None, url: str = "") -> tuple[ImportReport, list[Refusal]]:
        with open_database(source, url or self.url, table=table, clients=CLIENTS) as found:
            return import_records(self.installation.services.accounts, found.records)

    def read_file(self, source: str, content: str | bytes) -> tuple[ImportReport, list[Refusal]]:
        encoded = content if isinstance(content, bytes) else content.encode()
        records = read_source_file(source, io.BufferedReader(io.BytesIO(encoded)), clients=CLIENTS)
        return import_records(self.installation.services.accounts, records)

    def granted(self, email: str) -> Grant:
        return self.installation.emulator.enrol(email, access_token_lifetime=HOUR)

    @property
    def epoch(self) -> int:
        """The end of granted access tokens, in seconds."""
        return int((self.installation.clock() + HOUR).timestamp())

    def all_served_and_refreshed(self, emails: Iterable[str] = (ANN, BOB)) -> None:
        """Each account's access token is served as it was, if it has one, and the grant can be refreshed."""
        for email in emails:
            assert self.installation.services.tokens.get(email).value
        self.installation.clock.advance(hours=1)
        assert self.installation.refresh_due()["refreshed"] == len(list(emails))


@pytest.fixture(name="foreign")
def _foreign(installation: Installation, foreign_url: str) -> Foreign:
    return Foreign(installation, foreign_url)


def test_prisma_rows(foreign: Foreign) -> None:
    """Times without a zone are in UTC. A password account keeps its hosts and gets no token."""
    foreign.sql(PRISMA)
    for number, email in enumerate((ANN, BOB)):
        grant = foreign.granted(email)
        end = (foreign.installation.clock() + HOUR).replace(tzinfo=None)
        tokens = {"refresh_token": grant.refresh_token, "access_token": grant.access_token, "token_expiry": end}
        foreign.insert('"MailCredentials"', id=str(number), email=email, **tokens)
    foreign.insert('"MailCredentials"', id="c", email=CAT, use_oauth=False, imap_host="imap.c.example", password="p")

    report, refused = foreign.read("prisma", url=f"{foreign.url}?schema=public&connection_limit=5&pgbouncer=true")

    assert (report, refused) == (ImportReport(new=3), [])
    assert foreign.installation.account().expires_at == foreign.installation.clock() + HOUR
    assert not foreign.installation.account(CAT).use_oauth
    foreign.all_served_and_refreshed()


def test_prisma_rows_in_camel_case_and_milliseconds(foreign: Foreign) -> None:
    """A schema and a table of other names, and a column of numbers."""
    foreign.sql(CAMEL_PRISMA)
    for email in (ANN, BOB):
        grant = foreign.granted(email)
        tokens = {"refreshToken": grant.refresh_token, "accessToken": grant.access_token}
        foreign.insert("mail.mail_accounts", emailAddress=email, expiresAt=foreign.epoch * 1000, **tokens)

    with pytest.raises(InvalidInput, match=r"^no table credentials; name it with --table \(mail\.mail_accounts\?\)$"):
        foreign.read("prisma", table="credentials")
    assert foreign.read("prisma", table="mail.mail_accounts")[0] == ImportReport(new=2)
    foreign.all_served_and_refreshed()


def test_prisma_rows_as_csv(foreign: Foreign) -> None:
    """As `psql --csv` writes them."""
    rows = [f"{ANN},{foreign.granted(ANN).refresh_token},,t,secret", f"{CAT},,,f,secret"]
    report, _ = foreign.read_file("prisma", "\n".join(["email,refreshToken,tokenExpiry,useOauth,password", *rows]))
    assert report == ImportReport(new=2)
    foreign.all_served_and_refreshed([ANN])


@pytest.mark.parametrize(
    ("schema", "account", "user", "names"),
    [
        (NEXTAUTH_PRISMA, '"Account"', '"User"', ("provider", "refresh_token", "access_token", "expires_at")),
        (AUTHJS_PG, "accounts", "users", ("provider", "refresh_token", "access_token", "expires_at")),
        (BETTER_AUTH, "account", '"user"', ("providerId", "refreshToken", "accessToken", "accessTokenExpiresAt")),
    ],
    ids=["Prisma adapter", "pg adapter", "Better Auth"],
)
def test_nextauth_rows(foreign: Foreign, schema: str, account: str, user: str, names: tuple[str, ...]) -> None:
    """The address is the user's, or the one of the id token. Other providers' rows are left out."""
    foreign.sql(schema)
    provider, refresh, access, expires = names
    end: object = foreign.epoch if expires == "expires_at" else foreign.installation.clock() + HOUR
    fixed = {"type": "oauth", "providerAccountId": "x"} if provider == "provider" else {}
    users = [(ANN, "azure-ad"), ("login@x.example", "microsoft-entra-id"), (CAT, "google")]
    for number, (email, name) in enumerate(users):
        mailbox = ANN if email == ANN else BOB
        grant = foreign.granted(mailbox)
        foreign.insert(user, id=number, email=email)
        token = _id_token(email=BOB) if mailbox == BOB else None
        foreign.insert(
            account,
            id=number,
            userId=number,
            **{provider: name, refresh: grant.refresh_token, access: grant.access_token, expires: end, **fixed},
            **({"id_token" if provider == "provider" else "idToken": token} if token else {}),
        )

    assert foreign.read("nextauth") == (ImportReport(new=2), [])
    foreign.all_served_and_refreshed()


def test_allauth_rows_and_dump(foreign: Foreign) -> None:
    """django-allauth itself makes both. The app registration is found by its client id."""
    tokens = {email: _allauth(foreign, email, "microsoft") for email in (ANN, BOB)}
    tokens[CAT] = _allauth(foreign, CAT, "google")
    tokens[BOB]["principal"] = "b0b@contoso.onmicrosoft.com"
    site = Path(__file__).with_name("allauth_site.py")
    done = subprocess.run(
        [sys.executable, site, foreign.url, json.dumps(tokens), DEFAULT_CLIENT_ID],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    assert foreign.read("allauth") == (ImportReport(new=2), [])
    assert foreign.read_file("allauth", done.stdout) == (ImportReport(replaced=2), [])

    assert foreign.installation.account(BOB).mail.login_name == "b0b@contoso.onmicrosoft.com"
    assert foreign.installation.account(ANN).mail.login_name is None
    foreign.all_served_and_refreshed()


def _allauth(foreign: Foreign, email: str, provider: str) -> dict[str, Any]:
    grant = foreign.granted(email)
    return {
        "provider": provider,
        "principal": email,
        "refresh_token": grant.refresh_token,
        "access_token": grant.access_token,
        "expires_at": foreign.epoch,
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_a_cache_of_msal(foreign: Foreign, indent: int | None) -> None:
    """MSAL itself writes it, with two users in one cache."""
    cache = msal.SerializableTokenCache()
    settings = foreign.installation.settings
    app = msal.ConfidentialClientApplication(
        DEFAULT_CLIENT_ID,
        client_credential=DEFAULT_CLIENT_SECRET,
        authority=settings.authority,
        instance_discovery=False,
        token_cache=cache,
        http_client=_session(str(settings.ca_bundle)),
    )
    for email in (ANN, BOB):
        refreshed = app.acquire_token_by_refresh_token(foreign.granted(email).refresh_token, scopes=["Mail.Read"])
        assert "access_token" in refreshed, refreshed
    document = json.loads(cache.serialize())
    for token in document["RefreshToken"].values():
        token["last_modification_time"] = str(int(foreign.installation.clock().timestamp()))

    assert foreign.read_file("msal-cache", json.dumps(document, indent=indent)) == (ImportReport(new=2), [])
    for token in document["RefreshToken"].values():
        token["client_id"] = "another"
    _, refused = foreign.read_file("msal-cache", json.dumps(document))
    assert all("its client id is that of no app registration" in each.reason for each in refused)
    foreign.all_served_and_refreshed()


def _session(ca_bundle: str) -> requests.Session:
    session = requests.Session()
    session.trust_env, session.verify = False, ca_bundle
    return session


def test_rows_of_nango(foreign: Foreign) -> None:
    """A server without a key of encryption. The address is where the application has put it."""
    foreign.sql(NANGO)
    for email, found in ((ANN, {"connection_id": ANN}), (BOB, {"connection_id": "u1", "metadata": {"email": BOB}})):
        values = {"connection_id": found["connection_id"], "metadata": json.dumps(found.get("metadata"))}
        foreign.insert(
            "nango._nango_connections",
            provider_config_key="outlook",
            credentials=json.dumps(_nango(foreign, email)),
            **values,
        )
    foreign.insert("nango._nango_connections", provider_config_key="slack", connection_id=CAT, credentials="{}")

    assert foreign.read("nango") == (ImportReport(new=2), [])
    foreign.all_served_and_refreshed()


def test_answers_of_nangos_api(foreign: Foreign) -> None:
    """One JSON object a connection."""
    answers = [
        {
            "connection_id": f"c{number}",
            "provider_config_key": "mail",
            "provider": "microsoft",
            "credentials": _nango(foreign, email),
            "end_user": {"email": email},
        }
        for number, email in enumerate((ANN, BOB))
    ]
    assert foreign.read_file("nango", json.dumps(answers)) == (ImportReport(new=2), [])
    foreign.all_served_and_refreshed()


def _nango(foreign: Foreign, email: str) -> dict[str, Any]:
    grant = foreign.granted(email)
    end = (foreign.installation.clock() + HOUR).isoformat().replace("+00:00", "Z")
    tokens = {"access_token": grant.access_token, "refresh_token": grant.refresh_token}
    return {"type": "OAUTH2", **tokens, "expires_at": end, "raw": tokens}


def test_a_token_file_of_mutt(foreign: Foreign) -> None:
    """Decrypted by its user."""
    token = {"registration": "microsoft", "authflow": "devicecode", "email": ANN, "access_token": "x"}
    token |= {"access_token_expiration": "2026-11-28T10:00:00.1", "refresh_token": foreign.granted(ANN).refresh_token}
    assert foreign.read_file("mutt", json.dumps(token, indent=2)) == (ImportReport(new=1), [])
    foreign.all_served_and_refreshed([ANN])


_ENCRYPTED: Mapping[str, Any] = {
    "Fernet": "gAAAAABmZ0",
    "Prisma": "v1.aesgcm256.ab12.x",
    "CryptoJS": "U2FsdGVkX1abc",
    "an object": {"iv": "x", "encryptedData": "y"},
}


@pytest.mark.parametrize("token", _ENCRYPTED.values(), ids=_ENCRYPTED)
def test_encrypted_tokens_end_the_import(foreign: Foreign, token: object) -> None:
    """They would all be sent to Microsoft, and the accounts would look dead."""
    row = {"email": ANN, "refreshToken": token}
    with pytest.raises(InvalidInput, match="encrypted by the other product; decrypt it there"):
        foreign.read_file("prisma", "\n".join([json.dumps(row)] * 3))
    report, [bad] = foreign.read_file("prisma", f"{json.dumps(row)}\n{json.dumps({**row, 'refreshToken': '1.A'})}")
    assert (report, bad.number) == (ImportReport(new=1, refused=1), 1)


def test_encrypted_columns_end_the_import(foreign: Foreign) -> None:
    """Bytes are never a token as Microsoft issues it, and Nango says where it encrypts."""
    foreign.sql(PRISMA.replace('"refresh_token" TEXT', '"refresh_token" BYTEA'), NANGO)
    foreign.insert('"MailCredentials"', id="1", email=ANN, refresh_token=b"\x01\x02")
    foreign.insert(
        "nango._nango_connections",
        provider_config_key="microsoft",
        connection_id=ANN,
        credentials=json.dumps({"encrypted_credentials": "abc"}),
        credentials_iv="iv",
    )
    for source in ("prisma", "nango"):
        with pytest.raises(InvalidInput, match="encrypted by the other product"):
            foreign.read(source)


_PGP = "the file is encrypted by GnuPG: gpg --decrypt FILE | token-worker import --from mutt -"
_ODD: list[object] = [
    [],
    None,
    "x",
    1,
    {"RefreshToken": {"a": 1}, "Account": []},
    {"credentials": 1, "provider": "microsoft"},
]


@pytest.mark.parametrize(
    ("source", "content", "sentence"),
    [
        (
            "mutt",
            "-----BEGIN PGP MESSAGE-----\n",
            _PGP,
        ),
        ("msal-cache", "\x00\x01", "the file is not JSON; it may be encrypted"),
        ("msal-cache", "{}", "the file is not MSAL's token cache, which has a field RefreshToken"),
        ("msal-cache", "[" * 100_000, "the file is not JSON; it may be encrypted"),
        ("allauth", "{}", "the file is no dump; write one with: manage.py dumpdata socialaccount"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(foreign: Foreign, source: str, content: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        foreign.read_file(source, content)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("source", SOURCES)
def test_odd_rows_raise_nothing_else(foreign: Foreign, source: str) -> None:
    """Each is refused or left out."""
    for row in _ODD:
        with suppress(InvalidInput):
            report, _ = foreign.read_file(source, json.dumps(row))
            assert report.new == 0


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://u:SECRET@h/db", "only Postgres can be read"),
        ("file:///dev.db", "only Postgres can be read"),
        ("postgresql://u:SECRET@127.0.0.1:1/db", "the other database cannot be used: "),
        ("postgresql://u:SECRET@[::1/db", "the URL of the other database is malformed"),
        ("postgresql://u:SECRET@127.0.0.1:99999/db", "the other database cannot be used: "),
        ("postgresql://u:SECRET@127.0.0.1:1/db?nonsense=1", "the other database cannot be used: "),
    ],
)
def test_a_wrong_url_is_one_sentence_without_the_password(foreign: Foreign, url: str, sentence: str) -> None:
    with pytest.raises(WorkerError) as error:
        foreign.read("prisma", url=url)
    assert isinstance(error.value, InvalidInput | Unavailable)
    assert str(error.value).startswith(sentence)
    assert "SECRET" not in str(error.value)


def test_the_other_database_is_only_read(foreign: Foreign) -> None:
    """Both refreshers run side by side; the import changes nothing that the other one uses."""
    foreign.sql(PRISMA)
    foreign.insert('"MailCredentials"', id="1", email=ANN, refresh_token=foreign.granted(ANN).refresh_token)
    foreign.sql("CREATE ROLE reader LOGIN PASSWORD 'p'", 'GRANT SELECT ON "MailCredentials" TO reader')
    try:
        url = foreign.url.replace(foreign.url.split("//")[1].split("@")[0], "reader:p")
        assert foreign.read("prisma", url=url)[0] == ImportReport(new=1)
    finally:
        foreign.sql("DROP OWNED BY reader", "DROP ROLE reader")
    assert foreign.installation.stored_secret(Purpose.REFRESH_TOKEN)


def _id_token(**claims: str) -> str:
    import jwt  # noqa: PLC0415

    return jwt.encode(claims, "x" * 32)
