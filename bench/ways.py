"""The calls that the map measures, on real stores with one mailbox. The identity provider is another process."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from bench.site import Provider, Site
from bench.trace import Trace, trace
from worker import clock
from worker.bootstrap import Consumer, Services, bootstrap, bootstrap_consumer
from worker.settings import Settings, load

_MINUTE = timedelta(minutes=1)  # longer than an entry stays in a process's memory
_EXPIRY = timedelta(hours=2)  # longer than the provider's tokens live


@dataclass(slots=True)
class TurnedClock:
    """Stands still until it is advanced."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True, slots=True)
class Installation:
    """The services of a worker and of a consumer on the same stores, with one mailbox."""

    site: Site
    provider: Provider
    clock: TurnedClock
    services: Services
    consumer: Consumer
    email: str


def ways(installation: Installation) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Each call to measure, with the number of its refreshes. Only this function names the product's entry points.

    A call leaves the mailbox in the state that the next one needs, after the lines between them.
    """
    services, consumer, time = installation.services, installation.consumer, installation.clock

    def read() -> object:
        return consumer.tokens.get(installation.email)

    read()
    yield "read, from memory", read, 0
    time.now += _MINUTE
    yield "read, from Redis", read, 0
    time.now += _MINUTE
    with installation.site.redis() as redis:
        redis.flushall()
    yield "read, Redis miss", read, 0
    time.now += _EXPIRY
    yield "read, stale: refresh on demand", read, 1
    time.now += _EXPIRY
    yield "one due account: refresh_due()", services.refresher.refresh_due, 1


def traces() -> dict[str, Trace]:
    """The trace of each call.

    The calls are measured twice, because the first round imports modules, connects, and reads the provider's metadata.
    """
    with _installation() as installation:
        _measure(installation)
        return _measure(installation)


def _measure(installation: Installation) -> dict[str, Trace]:
    found = {}
    for name, call, expected in ways(installation):
        before = installation.provider.granted()
        found[name] = trace(call)
        if (refreshes := installation.provider.granted() - before) != expected:
            raise RuntimeError(f"{name}: {refreshes} refreshes instead of {expected}, so this was another way")
    return found


@contextmanager
def _installation() -> Iterator[Installation]:
    with Site() as site, site.provider() as provider:
        time = TurnedClock(clock.utcnow())
        [email] = site.enrol(1)
        with (
            closing(bootstrap(load(Settings), utcnow=time)) as services,
            closing(bootstrap_consumer(load(Settings), utcnow=time)) as consumer,
        ):
            yield Installation(site, provider, time, services, consumer, email)
