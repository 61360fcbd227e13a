"""Consumers in threads: what they are given must be good at that instant, by the witness's own notes."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.witness import Witness
from worker.client import TokenClient
from worker.domain.errors import WorkerError

_READERS = 10  # each with accounts of its own, so that one account that keeps its reader waiting does not hide others
_PAUSE = 0.05  # seconds between two reads of one reader
_ON_ITS_WAY = 0.25  # seconds a token may have aged between the product's look at it and ours


@dataclass(frozen=True, slots=True)
class Refusal:
    """A read that ended without a token."""

    code: str
    said: str


@dataclass(slots=True)
class Diary:
    """What the readers saw since it was opened."""

    reads: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    offences: list[str] = field(default_factory=list)  # what no consumer may ever see


class Readers:
    """Read every account in turn until stopped."""

    def __init__(self, client: TokenClient, witness: Witness, emails: Sequence[str]) -> None:
        self._client = client
        self._witness = witness
        self._lock = threading.Lock()
        self._diary = Diary()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._read_all, args=(emails[number::_READERS],), daemon=True)
            for number in range(_READERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def turn_page(self) -> Diary:
        """The diary so far; a new one is begun."""
        with self._lock:
            done, self._diary = self._diary, Diary()
        return done

    def reads(self) -> int:
        """How many there have been since the page was turned."""
        with self._lock:
            return self._diary.reads

    def _read_all(self, emails: Sequence[str]) -> None:
        while True:
            for email in emails:
                if self._stopped.wait(_PAUSE):
                    return
                self._read(email)

    def _read(self, email: str) -> None:
        began = time.monotonic()
        refusal: Refusal | None = None
        offence: str | None = None
        try:
            token = self._client.get(email)
        except WorkerError as error:
            refusal = Refusal(error.code, f"{error} (after {time.monotonic() - began:.1f} s)")
        except Exception as error:  # noqa: BLE001 - a reader that died in silence would see no violation any more
            offence = f"{email}: reading failed with {error!r}"
        else:
            offence = self._offence(email, token.value)
        with self._lock:
            self._diary.reads += 1
            self._diary.refusals += [refusal] if refusal else []
            self._diary.offences += [offence] if offence else []

    def _offence(self, email: str, token: str) -> str | None:
        life = self._witness.life_of(token)
        if life is None:
            return f"{email}: was given a token that was never issued"
        left = life.left()
        return f"{email}: was given a token {-left:.1f} s after its end" if left < -_ON_ITS_WAY else None
