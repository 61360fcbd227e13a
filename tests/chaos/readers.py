"""Consumers in threads. By the emulator's records, each token must be valid at the time of the read."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.recording_emulator import RecordingEmulator
from worker.client import TokenClient
from worker.domain.errors import WorkerError

_READERS = 10  # each has its own accounts, so that an account whose read blocks does not stop the reads of all others
_READ_INTERVAL = 0.05  # seconds between two reads of one reader
_READ_DURATION = 0.25  # seconds between the product's check of a token and the check here, at most


@dataclass(frozen=True, slots=True)
class Refusal:
    """A read that ended without a token."""

    code: str
    message: str


@dataclass(slots=True)
class ReadLog:
    """The results of reads since it was begun."""

    reads: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)  # results that no consumer may ever get


class Readers:
    """Read every account in turn until stopped."""

    def __init__(self, client: TokenClient, emulator: RecordingEmulator, emails: Sequence[str]) -> None:
        self._client = client
        self._emulator = emulator
        self._lock = threading.Lock()
        self._log = ReadLog()
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

    def take_log(self) -> ReadLog:
        """Return the log and begin a new one."""
        with self._lock:
            done, self._log = self._log, ReadLog()
        return done

    def reads(self) -> int:
        """The number of reads in the current log."""
        with self._lock:
            return self._log.reads

    def _read_all(self, emails: Sequence[str]) -> None:
        while True:
            for email in emails:
                if self._stopped.wait(_READ_INTERVAL):
                    return
                self._read(email)

    def _read(self, email: str) -> None:
        began = time.monotonic()
        refusal: Refusal | None = None
        violation: str | None = None
        try:
            token = self._client.get(email)
        except WorkerError as error:
            refusal = Refusal(error.code, f"{error} (after {time.monotonic() - began:.1f} s)")
        except Exception as error:  # noqa: BLE001 - a reader that has ended would find no more violations
            violation = f"{email}: reading failed with {error!r}"
        else:
            violation = self._violation(email, token.value)
        with self._lock:
            self._log.reads += 1
            self._log.refusals += [refusal] if refusal else []
            self._log.violations += [violation] if violation else []

    def _violation(self, email: str, token: str) -> str | None:
        life = self._emulator.life_of(token)
        if life is None:
            return f"{email}: was given a token that was never issued"
        left = life.left()
        return f"{email}: was given a token {-left:.1f} s after its end" if left < -_READ_DURATION else None
