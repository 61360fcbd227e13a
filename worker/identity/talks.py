"""Talks with the token endpoint: each one question and, if its credential is refused, another. Many go on at once."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar, assert_never

from worker.domain.breaker import counts_against
from worker.domain.outcome import Outcome, Scope
from worker.identity.wire import Exchange, Message, Reply, Wire, WireError, monotonic

Key = TypeVar("Key")

#: Says what to send, is told what came back, and ends with what it means.
Talk = Generator[Message, Reply, Outcome]

# Answers are handed over together, because each group costs a commit: so many, or whatever has come within this time.
# Microsoft takes about as long for one. A kill loses what is under way and what has gathered: that at most doubles it.
_GROUP = 250
_GATHER = 0.15  # seconds
_REFILL = 0.75  # of the window: to begin talks one by one, as room is made, costs more than to begin some at once
_CAREFUL = 16  # talks at once
_A_WHILE = 60.0  # seconds; longer than any question


@dataclass(slots=True)
class Answered(Generic[Key]):
    """How one talk ended; an exception stands for whatever could not be asked at all."""

    key: Key
    outcome: Outcome | Exception
    seconds: float  # on the wire


@dataclass(slots=True)
class _UnderWay(Generic[Key]):
    key: Key
    talk: Talk
    seconds: float = 0.0


class Window:
    """How many talks may go on at once: few, until they are seen to go well.

    An app secret that is wrong, or a platform in trouble, is known by the first answers; whatever else is under way by
    then is asked in vain.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = min(_CAREFUL, most)
        self.is_trusted = False  #: whether others may begin before what was answered has been looked at

    def learn(self, outcomes: Iterable[Outcome | Exception]) -> None:
        """Twice as many after good answers, few again after one that is not about its account."""
        of_others = [outcome for outcome in outcomes if speaks_for_others(outcome)]
        bad = any(not isinstance(outcome, Exception) and counts_against(outcome) for outcome in of_others)
        self.size = min(self._most, _CAREFUL if bad else 2 * self.size)
        self.is_trusted = self.size == self._most and not of_others


def speaks_for_others(outcome: Outcome | Exception) -> bool:
    """Whether it is about more than its account: then nobody should be asked before it has been looked at."""
    return not isinstance(outcome, Exception) and outcome.scope is not Scope.ACCOUNT


class Talks(Generic[Key]):
    """The talks of one thread."""

    def __init__(self, wire: Wire) -> None:
        self._exchange = Exchange[_UnderWay[Key]](wire)
        self._answered: list[Answered[Key]] = []

    def hold(self, talks: Iterator[tuple[Key, Talk]], window: Window) -> Iterator[list[Answered[Key]]]:
        """Begin a talk whenever the window has room for it; yields groups of those that have ended."""
        with self._exchange:
            while True:
                self._begin(talks, window)
                if not (self._exchange or self._answered):
                    return
                self._gather(talks, window)
                answered, self._answered = self._answered, []
                window.learn(each.outcome for each in answered)
                yield answered

    def _begin(self, talks: Iterator[tuple[Key, Talk]], window: Window) -> None:
        for key, talk in islice(talks, max(0, window.size - len(self._exchange))):
            self._go_on(_UnderWay(key, talk), None)

    def _gather(self, talks: Iterator[tuple[Key, Talk]], window: Window) -> None:
        """Wait for a group of answers; while all is well, others are asked meanwhile."""
        until: float | None = None
        flows = window.is_trusted
        while self._exchange and len(self._answered) < _GROUP:
            if until is None and self._answered:
                until = monotonic() + _GATHER
            patience = _A_WHILE if until is None else until - monotonic()
            if patience <= 0:
                return
            known = len(self._answered)
            for under_way, reply, seconds in self._exchange.wait(patience):
                under_way.seconds += seconds
                self._go_on(under_way, reply)
            flows = flows and not any(speaks_for_others(each.outcome) for each in self._answered[known:])
            if flows and len(self._exchange) <= window.size * _REFILL:
                self._begin(talks, window)

    def _go_on(self, under_way: _UnderWay[Key], reply: Reply | WireError | None) -> None:
        """Until the talk has something to send, or has ended."""
        outcome: Outcome | Exception
        try:
            message = _tell(under_way.talk, reply)
            self._exchange.begin(under_way, message)
        except StopIteration as ended:
            outcome = ended.value
        except Exception as error:  # noqa: BLE001 - of one account, and for its caller; the other talks go on
            outcome = error
        else:
            return
        self._answered.append(Answered(under_way.key, outcome, under_way.seconds))


def _tell(talk: Talk, reply: Reply | WireError | None) -> Message:
    match reply:
        case None:
            return next(talk)
        case Reply():
            return talk.send(reply)
        case WireError():
            return talk.throw(reply)
        case unreachable:
            assert_never(unreachable)
