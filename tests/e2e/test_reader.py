"""A consumer that only reads gets its tokens from real workers, by the queue of on-demand refreshes."""

import json
import sys
from pathlib import Path

from tests.constants import ANN, BOB
from tests.e2e.deployment import Deployment
from worker.devkit.emulator import oauth_error
from worker.domain.account import account_id

_SCRIPT = """
import json, sys
from worker.client import TokenClient, WorkerError

ann, bob = sys.argv[1:]
with TokenClient.from_env() as client:
    token = client.get(ann)
    newer = client.report_rejected(ann, token.version)
    try:
        client.get(bob)
    except WorkerError as error:
        problem = error.code
    print(json.dumps({"versions": [token.version, newer.version], "problem": problem}))
"""


def _access(deployment: Deployment) -> dict[str, str]:
    """The variables of a process without secrets."""
    made = deployment.cli("keygen", "--access")
    assert made.returncode == 0, made.stderr
    return {"WORKER_REDIS_URL": deployment.environment["WORKER_REDIS_URL"], "WORKER_ACCESS_KEYS": made.stdout.strip()}


def test_a_reader_is_served_by_a_worker(deployment: Deployment) -> None:
    """Its process has two variables, the Redis URL and an access key. The worker has all others."""
    deployment.add_due_accounts(ANN, BOB)
    deployment.emulator.add_fault(oauth_error("AADSTS50173"), BOB)
    worker = deployment.worker("urgent", "-Q", "ondemand", concurrency=1)
    access = _access(deployment)
    deployment.environment = access  # the reader has no other variable

    done = deployment.run([sys.executable, "-c", _SCRIPT, ANN, BOB])

    assert done.returncode == 0, done.stderr + worker.output()[-2000:]
    assert json.loads(done.stdout) == {"versions": [2, 3], "problem": "needs_user"}
    assert worker.output().count("received") == 3
    assert {email: each.requests for email, each in deployment.emulator.statistics().by_account.items()} == {
        ANN: 2,
        BOB: 1,
    }
    assert str(account_id(ANN)) not in done.stdout


def test_access_keys_need_encryption_keys(deployment: Deployment, tmp_path: Path) -> None:
    """Access keys are derived from them. A new key and an access key cannot be made at the same time."""
    without = deployment.cli("keygen", "--access", WORKER_ENCRYPTION_KEYS="")
    both = deployment.cli("keygen", "--access", "--id", "k2")

    assert (without.returncode, both.returncode) == (4, 2)
    assert "WORKER_ENCRYPTION_KEYS" in without.stderr
