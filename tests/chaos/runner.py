"""Strikes, waits until the fleet is calm again, and counts what went wrong."""

import re
import time
from dataclasses import dataclass

from tests.chaos import invariants
from tests.chaos.faults import Fault
from tests.chaos.fleet import Fleet
from tests.chaos.table import Row

_RECOVERY = 90.0  # seconds; generous, because the machine may be busy
_LOOK_AGAIN = 0.1  # seconds
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
    _set_out(fleet, fault)
    refreshes, times = fleet.witness.statistics().refreshes, 0
    violations: list[str] = []
    while not violations and fleet.strikes < fault.strikes:
        try:
            times += fault.strike(fleet)
        except AssertionError as error:
            violations.append(str(error))
        violations += _recover(fleet)
        fleet.strikes += 1
    diary = fleet.readers.turn_page()
    violations += fleet.witness.take_objections() + diary.offences
    violations += [refusal.said for refusal in diary.refusals if refusal.code not in fault.tolerates]
    row = Row(fault.name, times, fleet.witness.statistics().refreshes - refreshes, diary.reads, len(violations))
    return Report(row, violations)


def _set_out(fleet: Fleet, fault: Fault) -> None:
    fleet.strikes = 0
    if fleet.strict is not fault.strict:
        fleet.strict = fault.strict
        fleet.sign_in(fleet.emails)
    if restless := _recover(fleet):
        raise AssertionError(restless)
    fleet.readers.turn_page()
    fleet.witness.take_objections()


def _recover(fleet: Fleet) -> list[str]:
    """Everybody must be refreshed once more, by the schedule, and nothing of the fault may stay. What does is mended,
    so that the next fault is judged by its own deeds."""
    before, end = fleet.versions(), time.monotonic() + _RECOVERY
    fleet.make_due()
    while wrong := [*invariants.behind(fleet, before), *invariants.unrest(fleet)]:
        if time.monotonic() > end or invariants.sign_ins_wanted(fleet):
            fleet.mend()
            return wrong
        time.sleep(_LOOK_AGAIN)
    return []
