"""The demo prints a correct verdict, and leaves no process and no file, no matter when and how it ends.

One demo runs to its verdict in the background, while others are interrupted.
"""

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.e2e.flower import Pages
from tests.e2e.foreground import Foreground, foreground, open_directory
from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.demo import MAILBOXES

# Tokens live 63 to 88 s here, the same in every run. The last mailbox is due after 59 s. There is a sweep every 2 s.
SECONDS = 80
INTERRUPTED = 130
SERVERS = {"postgres", "valkey-server"}

pytestmark = [
    pytest.mark.xdist_group("demo"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

Moment = Callable[[Foreground], object]
MOMENTS: dict[str, Moment] = {
    "python is still importing": lambda demo: _until_imported(demo, "_rust.abi3.so"),  # after half of the imports
    "the cluster is made": lambda demo: _until_there_is(demo, "stores/postgres/data.new"),
    "the demo runs": lambda demo: demo.until_printed(" mailboxes "),
}


@pytest.fixture(scope="module", name="whole_demo")
def _whole_demo() -> Iterator[Foreground]:
    with open_directory() as directory, foreground(directory, "demo", "--seconds", str(SECONDS)) as demo:
        demo.until_printed(" mailboxes ")  # so that Flower's port is in use when the others start
        yield demo


def test_the_demo_says_where_flower_is_and_how_to_sign_in(whole_demo: Foreground) -> None:
    """The address and the password are printed, and they work."""
    printed = re.search(
        r"^Flower +(http://127\.0\.0\.1:\d+)/  \(sign in as (\S+:\S+)\)$", whole_demo.stdout(), re.MULTILINE
    )

    assert printed
    flower = Pages(printed[1], printed[2])
    assert flower.status("/", None) == 401
    assert [name.partition("@")[0] for name in flower.json("/api/workers?refresh=true")] == ["worker"]
    assert set(whole_demo.family().values()) >= SERVERS, "the processes are found at all"


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing_behind(whole_demo: Foreground, directory: Path, moment: str) -> None:
    """The exit code is 130, and no message, process or file is left."""
    with foreground(directory, "demo") as demo:
        MOMENTS[moment](demo)
        demo.ctrl_c()

        assert demo.end() == INTERRUPTED
        _check_nothing_is_left(demo)


_DROPPED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass  # as importlib does with exceptions in its callbacks

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["worker.cli", "worker.devkit.demo"])
def test_ctrl_c_ends_the_demo_even_where_importlib_drops_exceptions(directory: Path, module: str) -> None:
    """Otherwise the signal would be lost, and the demo would go on."""
    (directory / "sitecustomize.py").write_text(_DROPPED.format(module=module))

    with foreground(directory, "demo", PYTHONPATH=str(directory)) as demo:
        assert demo.end() == INTERRUPTED
        assert demo.output() == ""


@pytest.mark.parametrize("moment", ["python is still importing", "the cluster is made"])
def test_a_supervisors_sigterm_leaves_nothing_behind(whole_demo: Foreground, directory: Path, moment: str) -> None:
    """Like Ctrl-C. Before there is anything to clean up, the signal itself may end the process."""
    with foreground(directory, "demo") as demo:
        MOMENTS[moment](demo)
        demo.terminate()

        assert demo.end() in {INTERRUPTED} | ({-signal.SIGTERM} if "importing" in moment else set())
        _check_nothing_is_left(demo)


def test_more_signals_do_not_stop_the_clean_up(whole_demo: Foreground, directory: Path) -> None:
    """A person may press Ctrl-C several times, and a supervisor may send more than one SIGTERM."""
    with foreground(directory, "demo") as demo:
        MOMENTS["the demo runs"](demo)
        demo.ctrl_c()
        for signal_again in (demo.ctrl_c, demo.terminate, demo.ctrl_c):
            time.sleep(0.4)  # seconds; the clean-up takes longer
            if demo.alive():
                signal_again()

        assert demo.end() == INTERRUPTED
        _check_nothing_is_left(demo)


def test_the_servers_and_workers_of_a_killed_demo_end(whole_demo: Foreground, directory: Path) -> None:
    """After kill -9 the demo cannot clean up, so its children notice its end."""
    with foreground(directory, "demo") as demo:
        demo.until_printed(" mailboxes ")
        demo.kill()
        demo.end()

        wait_for(lambda: not demo.family(), about="its processes to end")


def test_the_demo_never_touches_stores_of_the_environment(
    whole_demo: Foreground, directory: Path, database_url: str, redis_url: str
) -> None:
    """The demo flushes Redis and adds mailboxes. In a shell with production's settings it must not touch the stores."""
    with (
        redis.Redis.from_url(redis_url) as client,
        foreground(
            directory, "demo", "--seconds", "10", WORKER_DATABASE_URL=database_url, WORKER_REDIS_URL=redis_url
        ) as demo,
    ):
        client.set("precious", "1")
        wait_for(lambda: not demo.alive() or "Redis flushed" in demo.stdout(), about="the flush, or an error")

        assert client.keys() == [b"precious"]
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM mail_credentials").fetchall() == [(0,)]


def test_the_demo_ends_with_a_good_verdict_and_without_a_trace(whole_demo: Foreground) -> None:
    """Every mailbox is refreshed, and every read gets a live token, even after the flush. A pipe gets plain lines."""
    assert whole_demo.end(SECONDS + HANG_LIMIT) == 0, whole_demo.output()[-2000:]
    lines = whole_demo.stdout().splitlines()
    verdict = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines[-6:])

    assert int(verdict.pop("refreshes done")) >= MAILBOXES
    assert int(verdict.pop("reads served")) > 1000
    assert verdict == {"stale reads": "0", "failed reads": "0", "sign-ins needed": "0", "verdict": "OK"}
    progress = re.compile(
        rf" +\d+ s  {MAILBOXES} mailboxes  \d+ refreshes  \d+ reads  0 stale  shortest life left \d+ s"
    )
    assert len([line for line in lines if progress.fullmatch(line)]) >= SECONDS // 10
    assert len([line for line in lines if "Redis flushed" in line]) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", whole_demo.stdout()), "plain lines only"
    _check_nothing_is_left(whole_demo)


def _until_imported(demo: Foreground, library: str) -> None:
    wait_for(lambda: demo.has_loaded(library), about=library, processes=[demo])


def _until_there_is(demo: Foreground, path: str) -> None:
    wait_for(lambda: list(demo.temporary.glob(f"*/{path}")), about=path, processes=[demo])


def _check_nothing_is_left(demo: Foreground) -> None:
    """There are no files, and soon no processes. Children of a killed server may end a moment later."""
    assert demo.errors() == ""
    assert "Traceback" not in demo.stdout()
    assert list(demo.temporary.iterdir()) == []
    wait_for(lambda: not demo.family(), about="its processes to end")
