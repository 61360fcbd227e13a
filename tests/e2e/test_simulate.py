"""`simulate` reads the schedule of the stored accounts, and fits a terminal of 80 columns and 24 rows."""

import json

from tests.constants import ANN
from tests.e2e.deployment import Deployment
from tests.e2e.terminal import in_terminal
from tests.factories import emails


def test_the_next_hours_of_the_stored_accounts(deployment: Deployment) -> None:
    deployment.add_due_accounts(ANN, *emails(20))

    status, output = in_terminal(deployment, "simulate", "--outage", "1h+30min", "--add", "1000")

    lines = output.splitlines()
    assert (status, len(lines) <= 24, max(map(len, lines)) <= 80) == (0, True, True), output
    assert "█" in output
    found = json.loads(deployment.cli("simulate", "--json", "--hours", "2", "--rate", "0.1").stdout)
    assert (found["accounts_due"], found["peak_requests_per_minute"], len(found["minutes"])) == (21, 6, 120)


def test_a_malformed_outage_is_refused(deployment: Deployment) -> None:
    done = deployment.cli("simulate", "--outage", "tomorrow")

    assert done.returncode == 2
    assert "30min+2h" in done.stderr
