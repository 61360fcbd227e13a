"""Runs the areas of an examination side by side, each with a time limit."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from typing import NamedTuple, Protocol

import structlog

from worker.domain.errors import WorkerError
from worker.domain.finding import Finding, failed

_LIMIT = 60.0  # seconds for an area; every request in it has a shorter limit of its own
_LOOK = 1.0  # seconds until the caller can show what it waits for

_log = structlog.get_logger(__name__)


class Area(Protocol):
    """A part of the examination. Its findings come one after another."""

    @property
    def name(self) -> str: ...

    def examine(self) -> Iterator[Finding]:
        """Findings about this area: one for each cause. May raise WorkerError, which becomes a finding."""


class _Run(NamedTuple):
    area: Area
    findings: Queue[Finding | None]  # None is the end


class Doctor:
    """Examines all areas at the same time."""

    def __init__(self, areas: Sequence[Area]) -> None:
        self._areas = areas

    def examine(self, *, waits_for: Callable[[Sequence[str]], None]) -> Iterator[Finding]:
        """All findings, in the order of the areas. ``waits_for`` is called with names of areas once a second."""
        runs = [_start(area) for area in self._areas]
        for number, run in enumerate(runs):
            names = [other.area.name for other in runs[number:]]
            yield from _findings(run, lambda names=names: waits_for(names))  # type: ignore[misc]


def _start(area: Area) -> _Run:
    run = _Run(area, Queue())
    threading.Thread(target=_examine, args=run, daemon=True).start()  # a daemon, because a hung one must not stay
    return run


def _examine(area: Area, findings: Queue[Finding | None]) -> None:
    try:
        for finding in area.examine():
            findings.put(finding)
    except WorkerError as error:
        findings.put(failed(area.name, str(error), ""))
    except Exception as error:  # noqa: BLE001 - the other areas' findings are worth having
        _log.exception("A check of the doctor has failed", area=area.name)
        problem = f"this check has failed itself: {type(error).__name__}"
        findings.put(failed(area.name, problem, "Report it, with the output of: token-worker -v doctor"))
    finally:
        findings.put(None)


def _findings(run: _Run, waiting: Callable[[], None]) -> Iterator[Finding]:
    waited = 0.0
    while True:
        try:
            finding = run.findings.get(timeout=_LOOK)
        except Empty:
            waited += _LOOK
            waiting()
            if waited >= _LIMIT:
                yield failed(run.area.name, f"no result within {_LIMIT:.0f} s", "Look for what hangs")
                return
            continue
        if finding is None:
            return
        yield finding
