"""``promtool`` and ``prometheus`` of Debian's package ``prometheus``. Tests that need them are skipped without it."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.waiting import HANG_LIMIT

ROOT = Path(__file__).parents[1]
DIRECTORY = ROOT / "deploy" / "prometheus"
RULES = DIRECTORY / "rules.yml"
STEP = 15  # seconds between two samples and two evaluations, as in deploy/prometheus/prometheus.yml

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs Debian's package prometheus; .ci/run installs it"
)


def promtool(*arguments: str) -> str:
    """The output. Fails if promtool fails."""
    ran = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=DIRECTORY, timeout=HANG_LIMIT
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def check_firing(directory: Path, series: Mapping[str, str], expected: Mapping[int, Sequence[str]]) -> None:
    """Fail unless exactly the expected alerts fire at each of the instants, given in seconds.

    A series has its values in the notation of promtool, one for each STEP.
    """
    test = {
        "interval": f"{STEP}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{second}s",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names],
            }
            for second, names in expected.items()
        ],
    }
    path = directory / "faults.yml"
    path.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": f"{STEP}s", "tests": [test]})  # JSON is YAML
    )
    promtool("test", "rules", str(path))
