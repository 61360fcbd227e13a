"""Time travel: freezegun's clock, Celery beat that ticks on it, and the messages of the broker's queues.

Nothing is stubbed. Beat's own scheduler publishes to Redis, and the messages are run from there, as a worker does.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeAlias

from celery.beat import ScheduleEntry, Scheduler
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from kombu.exceptions import OperationalError
from kombu.message import Message

from tests.factories import TurnedClock
from worker.broker import REFRESH, SWEEP
from worker.celery import Worker
from worker.domain.errors import Unavailable

# These wait by the clock, and for ever if it stands still. Celery is not among them, because beat and the tasks use the
# frozen clock.
_NOT_FROZEN = ["_pytest.timing", "kombu", "psycopg", "redis", "sqlalchemy.pool", "sqlalchemy.util.queue", "urllib3"]

_EARLY_WAKE = timedelta(milliseconds=10)  # beat wakes this much early, and then polls until it is time
_A_MONTH = 30 * 86_400  # seconds; real beats also wake every few seconds and find nothing due


class FrozenClock(TurnedClock):
    """The time that freezegun shows to the whole process once the clock is entered.

    It is read directly, because freezegun lets some threads see the real time.
    """

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._freezer = freeze_time(start, ignore=_NOT_FROZEN)
        self._frozen: FrozenDateTimeFactory | None = None

    @property
    def now(self) -> datetime:
        return self._frozen().replace(tzinfo=UTC) if self._frozen else self._start

    @now.setter
    def now(self, now: datetime) -> None:
        assert self._frozen is not None
        self._frozen.tick(now - self.now)

    def __enter__(self) -> Self:
        frozen = self._freezer.start()
        assert isinstance(frozen, FrozenDateTimeFactory)
        self._frozen = frozen
        return self

    def __exit__(self, *_: object) -> None:
        self._freezer.stop()


class Beat(Scheduler):
    """Celery's own scheduler. It records the messages that it sent, or tried to send."""

    def __init__(self, app: Worker, clock: Callable[[], datetime]) -> None:
        super().__init__(app, max_interval=_A_MONTH)
        self._clock = clock
        self.sent: list[tuple[str, datetime]] = []

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        self.sent.append((str(entry.name), self._clock()))
        super().apply_entry(entry, producer)


class Machine:
    """Beat and a worker. Time moves only while beat would sleep."""

    def __init__(self, app: Worker, clock: FrozenClock) -> None:
        app.loader.import_default_modules()
        self._app = app
        self._clock = clock
        self._beat = Beat(app, clock)
        # No message has a priority, and looking for priorities would take most of the time.
        self._broker = app.connection_for_read(transport_options={"priority_steps": [0]})
        self._channel: Any = None
        self._lost: tuple[type[BaseException], ...] = (OperationalError, *self._broker.connection_errors)
        self._outages: tuple[type[BaseException], ...] = (Unavailable, *self._lost)
        self.ran = Counter[str]()
        self.failed = Counter[str]()

    def sent(self, entry: str) -> list[datetime]:
        """The times at which beat sent an entry of its schedule."""
        return [at for name, at in self._beat.sent if name == entry]

    def travel(self, span: timedelta, *, stop: Callable[[], object] = lambda: None, every: int = 1) -> None:
        """Let ``span`` pass.

        After every so many sweeps ``stop`` is called, before they run, when the tokens are oldest.
        """
        end, sweeps = self._clock() + span, 0
        while (left := end - self._clock()) > timedelta(0):
            sent, pause = len(self._beat.sent), self._beat.tick()
            if len(self._beat.sent) == sent:
                self._clock.now += min(max(timedelta(seconds=pause), _EARLY_WAKE), left)
                continue
            is_sweep = self._beat.sent[-1][0] == "sweep"
            sweeps += is_sweep
            if is_sweep and sweeps % every == 0:
                stop()
            self.work()

    def work(self, *queues: str) -> None:
        """Run every message in these queues, or in all, and the messages that these send there."""
        for queue in queues or (SWEEP, REFRESH):
            while message := self._take(queue):
                self._run(message.headers, *message.payload[:2])

    def close(self) -> None:
        self._broker.release()
        self._beat.close()
        self._app.close()

    def _take(self, queue: str) -> Message | None:
        try:
            self._channel = self._channel or self._broker.channel()
            message: Message | None = self._app.amqp.queues[queue](self._channel).get(no_ack=True)
        except self._lost:
            self._channel = None  # the message is lost; connect again next time, as a worker does
            return None
        return message

    def _run(self, headers: dict[str, str], arguments: list[Any], keywords: dict[str, object]) -> None:
        task = headers["task"]
        try:
            self._app.tasks[task].apply(tuple(arguments), keywords, task_id=headers["id"], throw=True)
        except self._outages:
            self.failed[task] += 1  # a worker logs it and takes the next message
        else:
            self.ran[task] += 1


#: Starts a machine with this sweep interval.
Start: TypeAlias = Callable[[timedelta], Machine]
