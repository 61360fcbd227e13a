"""The counter of refreshes follows the ledger, and neither restarts nor pruning nor late commits spoil it."""

from collections.abc import Callable

import psycopg
import pytest

from tests.constants import ANN, BOB
from tests.factories import emails
from tests.integration.exporter.scraped import Exporter, Scraped
from tests.integration.installation import Installation

_GOOD = {"client": "default", "outcome": "refreshed", "code": "ok", "trigger": "schedule"}
_BAD = {"client": "other", "outcome": "transient", "code": "http_5xx", "trigger": "schedule"}
_INSERT = """
    INSERT INTO refresh_events (account_id, at, client, trigger, outcome, code, latency_ms, fingerprint_before)
    VALUES (gen_random_uuid(), now(), 'erin@contoso.com', 'schedule', 'transient', 'http_503', 700, '')
"""


class Counting:
    """An exporter whose scrapes are far enough apart for each commit to be counted."""

    def __init__(self, exporter: Exporter, installation: Installation) -> None:
        self._exporter = exporter
        self._installation = installation
        self.scrape()

    def scrape(self) -> Scraped:
        """The scrape after the next two, by which each new series has its value."""
        for _ in range(2):
            self._exporter.scrape()
            self._installation.clock.advance(seconds=20)
        return self._exporter.scrape()


@pytest.fixture(name="counting")
def _counting(exporter: Exporter, installation: Installation) -> Counting:
    return Counting(exporter, installation)


def test_refreshes_are_counted_by_outcome(installation: Installation, counting: Counting) -> None:
    installation.sign_in(ANN, BOB, due=True)
    installation.emulator.revoke(BOB)
    installation.refresh_due()

    page = counting.scrape()

    assert page.get("refreshes_total", **_GOOD) == 1
    assert page.get("refreshes_total", **_GOOD | {"outcome": "reauth_required", "code": "AADSTS50173"}) == 1
    assert page.get("refresh_duration_seconds_count") == 2
    assert page.get("refresh_duration_seconds_bucket", le="+Inf") == 2


def test_a_new_series_begins_with_zero(installation: Installation, exporter: Exporter, counting: Counting) -> None:
    """Prometheus sees no increase in the first sample of a series, and a rare failure has no second one."""
    installation.sign_in(ANN, due=True)
    installation.refresh_due()
    exporter.scrape()
    installation.clock.advance(seconds=20)

    assert exporter.scrape().get("refreshes_total", **_GOOD) == 0
    assert exporter.scrape().get("refreshes_total", **_GOOD) == 1


def test_a_restarted_exporter_counts_nothing_twice(
    installation: Installation, counting: Counting, new_exporter: Callable[..., Exporter]
) -> None:
    """It begins with 0, as every counter of Prometheus may."""
    installation.sign_in(*emails(3), due=True)
    installation.refresh_due()
    before = counting.scrape()
    restarted = Counting(new_exporter(), installation)
    installation.sign_in(ANN, due=True)
    installation.refresh_due()

    assert before.get("refreshes_total", **_GOOD) == 3
    assert restarted.scrape().get("refreshes_total", **_GOOD) == 1
    assert counting.scrape().get("refreshes_total", **_GOOD) == 4


def test_pruning_takes_nothing_away(installation: Installation, counting: Counting) -> None:
    installation.sign_in(ANN, due=True)
    installation.refresh_due()
    before = counting.scrape()
    installation.query("DELETE FROM refresh_successes")

    assert before.get("refreshes_total", **_GOOD) == 1
    assert counting.scrape().get("refreshes_total", **_GOOD) == 1


def test_a_database_from_a_backup_has_lower_ids(installation: Installation, counting: Counting) -> None:
    for _ in range(5):
        installation.query(_INSERT)
    before = counting.scrape()
    installation.query("ALTER SEQUENCE refresh_events_id_seq RESTART")
    counting.scrape()
    installation.query(_INSERT)

    assert before.get("refreshes_total", **_BAD) == 5
    assert counting.scrape().get("refreshes_total", **_BAD) == 6


def test_a_commit_that_comes_later_than_a_higher_id_is_counted(
    installation: Installation, exporter: Exporter, counting: Counting
) -> None:
    """Transactions take ids in another order than they commit."""
    url = installation.settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as late:
        late.execute(_INSERT)
        installation.query(_INSERT)
        exporter.scrape()
        installation.clock.advance(seconds=5)
        exporter.scrape()
        late.commit()

    assert counting.scrape().get("refreshes_total", **_BAD) == 2


def test_no_text_of_the_ledger_becomes_a_label(installation: Installation, counting: Counting) -> None:
    """Codes come from the identity server, and the address of an account may be anywhere in a row."""
    installation.sign_in(ANN)
    installation.query(
        "UPDATE mail_credentials SET client = 'Ann@contoso.com', failure_count = 1, failure_code = 'ann'"
    )
    installation.query(f"{_INSERT}, (gen_random_uuid(), now(), '{ANN}', '{ANN}', '{ANN}', '{ANN}', 1, '')")

    page = counting.scrape()

    other = dict.fromkeys(("client", "outcome", "code", "trigger"), "other")
    assert page.get("refreshes_total", **other) == 1
    assert not [name for name, samples in page.samples.items() if "contoso" in str(samples).lower()]
