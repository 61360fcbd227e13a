"""Cache and broker reach Redis in every form of its URL: through a socket, TLS, and with a password that expires."""

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.hostile.tls_front import TlsFront
from tests.proxy import Proxy, pass_both_ways
from worker.broker import TaskSender
from worker.cache import connect
from worker.domain.account import account_id
from worker.domain.errors import Unavailable
from worker.settings import BrokerSettings

ANN = account_id("ann@contoso.com")


class SocketFile(Proxy):
    """A socket in the file system, as a local server has it."""

    def __init__(self, path: Path, port: int) -> None:
        super().__init__()
        self._listener.close()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._target = "127.0.0.1", port

    def serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            pass_both_ways(client, server)


@pytest.fixture(name="place")
def _place(redis_url: str) -> tuple[str, int]:
    """Password and port of the test's Redis."""
    parts = urlsplit(redis_url)
    assert parts.password
    assert parts.port
    return parts.password, parts.port


def loaded(url: str, **settings: object) -> str:
    return BrokerSettings.model_validate({"redis_url": url, **settings}).broker


def assert_usable(url: str) -> None:
    with connect(url) as client, closing(TaskSender(url)) as sender:
        before = client.llen("ondemand")
        sender.request_refresh(ANN, min_ttl=None, rejected=None)
        assert client.llen("ondemand") == before + 1


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_a_server(place: tuple[str, int], scheme: str) -> None:
    assert_usable(loaded(f"{scheme}://:{place[0]}@127.0.0.1:{place[1]}/0"))


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
def test_a_socket(place: tuple[str, int], tmp_path_factory: pytest.TempPathFactory, scheme: str) -> None:
    """With another database than the default one, and a password."""
    password, port = place
    path = tmp_path_factory.mktemp("s") / "redis.sock"
    with SocketFile(path, port), redis.Redis(port=port, password=password, db=3) as other:
        assert_usable(loaded(f"{scheme}://:{password}@{path}?db=3"))
        assert other.llen("ondemand") == 1


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_the_authorities_of_the_settings(place: tuple[str, int], tmp_path: Path, scheme: str) -> None:
    """They hold for cache and broker. Without them both refuse the server."""
    password, port = place
    with TlsFront(tmp_path, name="localhost", target=("127.0.0.1", port)) as front:
        url = f"{scheme}://:{password}@localhost:{front.port}/0"
        assert_usable(loaded(url, ca_bundle=front.ca_bundle))

        with connect(loaded(url)) as client, pytest.raises(redis.ConnectionError, match="certificate"):
            client.ping()
        with closing(TaskSender(loaded(url))) as sender, pytest.raises(Unavailable):
            sender.request_refresh(ANN, min_ttl=None, rejected=None)


@pytest.fixture(name="user")
def _user(redis_url: str) -> Iterator[str]:
    """A user of Redis with the password `first`."""
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command("ACL", "SETUSER", "expiring", "on", ">first", "~*", "&*", "+@all")
        yield "expiring"
        server.acl_deluser("expiring")


@pytest.mark.parametrize("username", ["expiring", ""], ids=["a user", "no user"])
def test_a_password_that_expires_is_read_again_at_each_connect(
    place: tuple[str, int], redis_url: str, user: str, tmp_path: Path, username: str
) -> None:
    """By the cache and by the broker. Without a user it is that of the default one."""
    file, name = tmp_path / "password", username or "default"
    file.write_text("first\n")
    url = loaded(f"redis://{username}@127.0.0.1:{place[1]}/0", redis_password_file=file)
    with redis.Redis.from_url(redis_url) as server, connect(url) as client, closing(TaskSender(url)) as sender:

        def change(password: str) -> None:
            server.execute_command("ACL", "SETUSER", name, "resetpass", f">{password}", f">{place[0]}")
            file.write_text(password)
            server.client_kill_filter(skipme=True, user=name)

        for password in ("first", "second"):
            change(password)
            client.ping()
            sender_usable(sender)
        server.execute_command("ACL", "SETUSER", "default", "resetpass", f">{place[0]}")


def sender_usable(sender: TaskSender) -> None:
    """The first message may meet the connection that was closed."""
    with suppress(Unavailable):
        sender.request_refresh(ANN, min_ttl=None, rejected=None)
    sender.request_refresh(ANN, min_ttl=None, rejected=None)


def test_without_its_file_no_password_is_sent(place: tuple[str, int], tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(place[0])
    url = loaded(f"redis://127.0.0.1:{place[1]}/0", redis_password_file=file)
    assert_usable(url)
    file.unlink()

    with connect(url) as client, pytest.raises(redis.AuthenticationError, match="WORKER_REDIS_PASSWORD_FILE"):
        client.ping()
