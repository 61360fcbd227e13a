"""Postgres is reached in every form of its URL: through sockets, several hosts, services, TLS, and with passwords
that expire."""

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.hostile.tls_front import TlsFront
from tests.proxy import Proxy, pass_both_ways
from tests.stores import admin
from worker.db.address import parse_url
from worker.db.session import Database
from worker.devkit.stack import Stack
from worker.domain.errors import DatabaseUnavailable


class Place:
    """The parts of the test's Postgres URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port
        self.user, self.password, self.port, self.name = parts.username, parts.password, parts.port, parts.path[1:]


@pytest.fixture(name="place")
def _place(database_url: str) -> Place:
    return Place(database_url)


class SocketInDirectory(Proxy):
    """A socket in a directory, as a local server has it."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__()
        self._listener.close()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen()
        self._target = "127.0.0.1", port

    def serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            pass_both_ways(client, server)


class PostgresTlsFront(TlsFront):
    """Accepts the request for TLS that precedes the handshake."""

    def serve(self, client: socket.socket) -> None:
        request = client.recv(8)
        assert request[4:] == bytes.fromhex("04d2162f")
        client.sendall(b"S")
        super().serve(client)


def asked(url: str, question: str = "SELECT current_database()") -> str:
    with closing(Database(url)) as database, database.begin() as connection:
        return str(connection.execute(text(question)).scalar())


def test_a_socket(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("s")
    with SocketInDirectory(directory, place.port):
        credentials = f"{place.user}:{place.password}"
        forms = f"@/{place.name}?host={directory}", f"@{quote(str(directory), safe='')}/{place.name}"
        assert [asked(f"postgresql://{credentials}{form}") for form in forms] == [place.name] * 2


def test_several_hosts(place: Place) -> None:
    """The first one is down. Both the form of libpq and that of SQLAlchemy work."""
    credentials, up = f"{place.user}:{place.password}", f"127.0.0.1:{place.port}"
    forms = (
        f"@127.0.0.1:1,{up}/{place.name}?target_session_attrs=read-write",
        f"@/{place.name}?host=127.0.0.1:1&host={up}&target_session_attrs=read-write",
    )
    assert [asked(f"postgresql://{credentials}{form}") for form in forms] == [place.name] * 2


def test_a_service_and_a_password_file_of_libpq(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(f"[mail]\nhost=127.0.0.1\nport={place.port}\nuser={place.user}\ndbname={place.name}\n")
    passwords.write_text(f"*:*:*:*:{place.password}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(services))

    assert asked(f"postgresql:///?service=mail&passfile={passwords}") == place.name


def test_options_of_the_url_and_the_limits_of_the_worker(database_url: str) -> None:
    url = f"{database_url}?options=-csearch_path%3Dtokens%20-cstatement_timeout%3D0"

    assert asked(url, "SHOW search_path") == "tokens"
    assert asked(url, "SHOW statement_timeout") == "10s"


@pytest.fixture(name="role")
def _role(stack: Stack) -> Iterator[str]:
    name = f"expiring_{uuid4().hex}"
    with closing(admin(stack)) as server:
        server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'first'")
        yield name
        server.execute(f"DROP ROLE {name}")


def test_a_password_that_expires_is_read_again_at_each_connect(
    place: Place, role: str, stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    url = parse_url(f"postgresql://{role}:old@127.0.0.1:{place.port}/{place.name}", password_file=file)
    with closing(Database(url)) as database, closing(admin(stack)) as server:
        database.ping()
        server.execute(f"ALTER ROLE {role} PASSWORD 'second'")
        file.write_text("second")
        server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [role])

        database.ping()

        file.unlink()
        server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [role])
        with pytest.raises(DatabaseUnavailable, match="WORKER_DATABASE_PASSWORD_FILE cannot be read: No such file"):
            database.ping()


def test_the_certificate_of_postgres_is_verified(place: Place, tmp_path: Path) -> None:
    """By the authorities of WORKER_CA_BUNDLE, and with the name of the host."""
    target = ("127.0.0.1", place.port)
    with (
        PostgresTlsFront(tmp_path, name="localhost", target=target) as right,
        PostgresTlsFront(tmp_path, name="other.example") as wrong,
    ):

        def url(front: TlsFront, ca_bundle: Path) -> str:
            place_of = f"{place.user}:{place.password}@localhost:{front.port}/{place.name}"
            return parse_url(f"postgresql://{place_of}?sslmode=verify-full&gssencmode=disable", ca_bundle=ca_bundle)

        assert asked(url(right, right.ca_bundle)) == place.name
        for front, bundle in ((right, wrong.ca_bundle), (wrong, wrong.ca_bundle)):
            with pytest.raises(DatabaseUnavailable, match="certificate"):
                asked(url(front, bundle))
        assert wrong.received == b""


def test_a_wrong_password_is_not_repeated(place: Place) -> None:
    with pytest.raises(DatabaseUnavailable) as refusal:
        asked(f"postgresql://{place.user}:hunter2@127.0.0.1:{place.port}/{place.name}")

    assert "authentication failed" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
