"""Examines Redis, as the cache and as the broker."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from worker.broker import broker_trial
from worker.cache import connect, inspection
from worker.cache.inspection import RedisServer
from worker.domain.errors import Unavailable
from worker.domain.finding import Finding, Level, failed, ok, warning
from worker.domain.redis_url import parse
from worker.domain.url_parts import AMQP_SCHEMES

_ALMOST_FULL = 0.9  # of maxmemory
_MEGABYTE = 1 << 20


class RedisArea:
    """Tries each kind of command that the processes use. The first failure is the last finding, because it would fail
    the other trials as well.
    """

    def __init__(self, setting: str, url: str, *, prefix: str, is_cache: bool, is_broker: bool) -> None:
        self.name = "redis" if is_cache else "broker"
        self._setting = setting
        self._url = url
        self._prefix = prefix
        self._is_cache = is_cache
        self._is_broker = is_broker

    def examine(self) -> Iterator[Finding]:
        trials = iter(()) if self._url.startswith(AMQP_SCHEMES) else self._examine_server()
        all_ok = True
        for finding in trials:
            all_ok = False
            yield finding
            if finding.level is Level.FAILED:
                return
        failure = self._broker_failure() if self._is_broker else None
        if failure:
            yield failure
        elif all_ok:
            yield ok(self.name)

    def _examine_server(self) -> Iterator[Finding]:
        """The faults of the server. A failure is the last one."""
        with connect(self._url, prefix=self._prefix) as redis:
            try:
                server = inspection.server(redis)
            except Unavailable as error:
                yield self._failure("cannot be used", error)
                return
            if server is None:
                yield warning(
                    self.name, "its user may not run INFO, so its state is unknown", "Run: ACL SETUSER … +info"
                )
            elif failure := self._wrong_state(server):
                yield failure
                return
            for action, attempt in inspection.trials(redis).items() if self._is_cache else ():
                if failure := self._failure_of(f"cannot {action}", attempt):
                    yield failure
                    return
        if server is not None:
            yield from self._weaknesses(server)

    def _broker_failure(self) -> Finding | None:
        try:
            with broker_trial(self._url, prefix=self._prefix) as broker:
                return self._failure_of("cannot queue and take a message", broker.queue) or self._failure_of(
                    "cannot publish and subscribe", broker.broadcast
                )
        except Unavailable as error:
            return self._failure("cannot be used", error)

    def _failure_of(self, problem: str, attempt: Callable[[], None]) -> Finding | None:
        try:
            attempt()
        except Unavailable as error:
            return self._failure(problem, error)
        return None

    def _failure(self, problem: str, error: Unavailable) -> Finding:
        cause = str(error).partition(" cannot be used: ")[2] or str(error)
        return failed(self.name, f"{problem}: {cause}", f"See {self._setting}, which names {_place(self._url)}")

    def _wrong_state(self, server: RedisServer) -> Finding | None:
        if server.is_cluster:
            problem = "it runs in cluster mode, in which entries cannot be read many at a time"
            return failed(self.name, problem, f"Lead {self._setting} to a server with cluster-enabled no")
        if server.is_replica:
            problem = "it is a replica, which takes no writes"
            return failed(
                self.name, problem, f"Lead {self._setting} to the primary, or run on this server: REPLICAOF NO ONE"
            )
        if server.eviction_policy.startswith("allkeys"):
            lost = " and ".join(self._contents())
            problem = f"when it is full, {server.eviction_policy} deletes any key, also those of {lost}"
            return failed(self.name, problem, "Run: CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE")
        if server.last_write_failed:
            problem = "it could not write its data to its disk"
            return failed(self.name, problem, "Look at its log, and free space on its disk")
        if server.memory_limit and server.memory >= server.memory_limit and server.eviction_policy == "noeviction":
            problem = f"it is full: maxmemory is {server.memory_limit / _MEGABYTE:.0f} MB"
            return failed(self.name, problem, "Run: CONFIG SET maxmemory with more, or find what fills it")
        return None

    def _weaknesses(self, server: RedisServer) -> Iterator[Finding]:
        if server.memory_limit and server.memory >= _ALMOST_FULL * server.memory_limit:
            share = server.memory / server.memory_limit
            yield warning(self.name, f"{share:.0%} of maxmemory are in use", "Run: CONFIG SET maxmemory with more")
        if not server.is_persistent:
            problem = f"a restart loses {' and '.join(self._contents())}, because it saves nothing to disk"
            yield warning(self.name, problem, "Run: CONFIG SET appendonly yes, and CONFIG REWRITE")

    def _contents(self) -> list[str]:
        """Its keys that are no copies."""
        return ["the outbox"] * self._is_cache + ["the queues"] * self._is_broker


def _place(url: str) -> str:
    """Where the server is, without user and password."""
    return str(urlsplit(url).hostname) if url.startswith(AMQP_SCHEMES) else parse(url).place
