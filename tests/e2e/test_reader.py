"""A consumer that only reads gets its tokens from real workers, by the queue of on-demand refreshes."""

import json
import sys
from pathlib import Path

from tests.e2e.installation import Installation
from worker.devkit.emulator import oauth_error
from worker.domain.account import account_id

ANN, BOB = "ann@contoso.com", "bob@contoso.com"
_SCRIPT = """
import json
from worker.client import TokenClient, WorkerError

with TokenClient.from_env() as client:
    token = client.get("ann@contoso.com")
    newer = client.report_rejected("ann@contoso.com", token.version)
    try:
        client.get("bob@contoso.com")
    except WorkerError as error:
        problem = error.code
    print(json.dumps({"versions": [token.version, newer.version], "problem": problem}))
"""


def _access(installation: Installation) -> dict[str, str]:
    """The variables of a process without secrets."""
    made = installation.cli("keygen", "--access")
    assert made.returncode == 0, made.stderr
    return {"WORKER_REDIS_URL": installation.environment["WORKER_REDIS_URL"], "WORKER_ACCESS_KEYS": made.stdout.strip()}


def test_a_reader_is_served_by_a_worker(installation: Installation) -> None:
    """Its process has two variables, the Redis URL and an access key. The worker has all others."""
    installation.enrol(ANN, BOB)
    installation.emulator.add_fault(oauth_error("AADSTS50173"), BOB)
    worker = installation.worker("urgent", "-Q", "ondemand", concurrency=1)
    access = _access(installation)
    installation.environment = access  # the reader has no other variable

    done = installation.run([sys.executable, "-c", _SCRIPT])

    assert done.returncode == 0, done.stderr + worker.output()[-2000:]
    assert json.loads(done.stdout) == {"versions": [2, 3], "problem": "needs_user"}
    assert worker.output().count("received") == 3
    assert {email: each.requests for email, each in installation.emulator.statistics().by_account.items()} == {
        ANN: 2,
        BOB: 1,
    }
    assert str(account_id(ANN)) not in done.stdout


def test_access_keys_need_encryption_keys(installation: Installation, tmp_path: Path) -> None:
    """Access keys are derived from them. A new key and an access key cannot be made at the same time."""
    without = installation.cli("keygen", "--access", WORKER_ENCRYPTION_KEYS="")
    both = installation.cli("keygen", "--access", "--id", "k2")

    assert (without.returncode, both.returncode) == (4, 2)
    assert "WORKER_ENCRYPTION_KEYS" in without.stderr
