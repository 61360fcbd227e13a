"""Two scrapes as series over time: a fleet that was well, and the same fleet after a fault."""

from dataclasses import dataclass

from tests.integration.exporter.scraped import Scraped
from tests.promtool import STEP

FAULT = 600  # seconds
# When all metrics show the fault: accounts are counted once a minute, and scraped up to a quarter of a minute later.
SEEN = FAULT + 75
_END = 780
_ALIVE = 30.0  # seconds; a process that lives has written its time since then

_Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A scrape, the time at which it was made, and the second of the timeline for which it stands."""

    page: Scraped
    scraped_at: float
    second: int

    def value(self, name: str, labels: _Labels, now: int) -> str:
        """A time that a live process writes moves on. Others stay where they were at the second of the scrape."""
        value = self.page.samples.get(name, {}).get(labels)
        if value is None:
            return "stale"
        if not name.endswith("_timestamp_seconds"):
            return repr(value)
        age = self.scraped_at - value
        return repr(now - age if age < _ALIVE else self.second - age)


def series(well: Scraped, after: Scraped, *, scraped_at: float) -> dict[str, str]:
    """The values of all series, in the notation of promtool."""
    before, faulty = Stage(well, scraped_at, FAULT), Stage(after, scraped_at, SEEN)
    names = {(name, labels) for page in (well, after) for name, found in page.samples.items() for labels in found}
    return {
        _name(name, labels): " ".join(
            (before if now < SEEN else faulty).value(name, labels, now) for now in range(0, _END, STEP)
        )
        for name, labels in names
    }


def _name(name: str, labels: _Labels) -> str:
    given = ", ".join(f'{label}="{value}"' for label, value in sorted({*labels, ("job", "token-worker")}))
    return f"token_worker_{name}{{{given}}}"
