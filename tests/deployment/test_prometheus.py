"""The rules of Prometheus: valid, tested by promtool, explained in the runbook, and true to the table of codes."""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.promtool import ROOT, RULES, needs_prometheus, promtool
from worker.domain.codes import ROWS, Verdict, flagged

_RUNBOOK = ROOT / "docs" / "operating.md"


def alerts() -> dict[str, dict[str, Any]]:
    """The alerting rules by name."""
    groups = YAML(typ="safe").load(RULES)["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def codes_of(alert: str) -> set[str]:
    """The codes that the alert is about."""
    [pattern] = re.findall(r'code=~"([^"]*)"', alerts()[alert]["expr"])
    return {row.code for row in ROWS if re.fullmatch(pattern, row.code)}


@needs_prometheus
def test_rules_and_configuration_are_valid() -> None:
    promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")


@needs_prometheus
def test_the_alerts_that_need_hours_or_days() -> None:
    promtool("test", "rules", "rules_test.yml")


@pytest.mark.parametrize("name", sorted(alerts()))
def test_the_runbook_explains_each_alert(name: str) -> None:
    rule = alerts()[name]
    headings = re.findall(r"^### (\w+)$", _RUNBOOK.read_text(), re.MULTILINE)

    assert rule["annotations"]["runbook_url"] == f"docs/operating.md#{name.lower()}"
    assert name in headings
    assert rule["labels"]["severity"] in {"page", "ticket", "info", "none"}
    assert rule["annotations"]["summary"]


def test_the_runbook_explains_no_other_alert() -> None:
    assert set(re.findall(r"^### (TokenWorker\w+)$", _RUNBOOK.read_text(), re.MULTILINE)) == set(alerts())


def test_refused_credentials_are_those_of_the_table() -> None:
    """The worker's own code says that no credential is set."""
    assert codes_of("TokenWorkerCredentialRefused") == flagged("credential") | {"no_credential"}


def test_throttles_are_those_of_the_table() -> None:
    assert codes_of("TokenWorkerThrottled") == {row.code for row in ROWS if row.verdict is Verdict.THROTTLED}
