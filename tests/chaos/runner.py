"""Injects faults, waits until the fleet has recovered, and counts violations."""

import re
import time
from dataclasses import dataclass

from tests.chaos import invariants
from tests.chaos.faults import Fault
from tests.chaos.fleet import Fleet
from tests.chaos.table import Row

_RECOVERY_LIMIT = 90.0  # seconds; long, because the machine may be busy
_CHECK_INTERVAL = 0.1  # seconds
_ADDRESS = re.compile(r"\S+@\S+")


@dataclass(frozen=True, slots=True)
class Report:
    """A row of the table, and its violations in words."""

    row: Row
    violations: list[str]

    def text(self) -> str:
        """Each kind of violation once, with its number and an example."""
        kinds: dict[str, list[str]] = {}
        for violation in self.violations:
            kinds.setdefault(_ADDRESS.sub("...", violation)[:80], []).append(violation)
        return "\n".join(f"{len(examples)} x {examples[0]}" for examples in kinds.values())


def run(fleet: Fleet, fault: Fault) -> Report:
    _prepare(fleet, fault)
    refreshes, times = fleet.emulator.statistics().refreshes, 0
    violations: list[str] = []
    while not violations and fleet.injections < fault.injections:
        try:
            times += fault.inject(fleet)
        except AssertionError as error:
            violations.append(str(error))
        violations += _recover(fleet)
        fleet.injections += 1
    log = fleet.readers.take_log()
    violations += fleet.emulator.take_violations() + log.violations
    violations += [refusal.message for refusal in log.refusals if refusal.code not in fault.tolerates]
    row = Row(fault.name, times, fleet.emulator.statistics().refreshes - refreshes, log.reads, len(violations))
    return Report(row, violations)


def _prepare(fleet: Fleet, fault: Fault) -> None:
    fleet.injections = 0
    if fleet.strict is not fault.strict:
        fleet.strict = fault.strict
        fleet.sign_in(fleet.emails)
    if wrong := _recover(fleet):
        raise AssertionError(wrong)
    fleet.readers.take_log()
    fleet.emulator.take_violations()


def _recover(fleet: Fleet) -> list[str]:
    """Wait until the schedule has refreshed every account once more, and no effect of the fault remains.

    Remaining effects are violations. They are repaired, so that they do not count for the next fault.
    """
    before, end = fleet.versions(), time.monotonic() + _RECOVERY_LIMIT
    fleet.make_due()
    while wrong := [*invariants.behind(fleet, before), *invariants.unsettled(fleet)]:
        if time.monotonic() > end or invariants.sign_ins_wanted(fleet):
            fleet.repair()
            return wrong
        time.sleep(_CHECK_INTERVAL)
    return []
