"""The Kubernetes manifests are valid, and keep the project's promises."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.deployment.process_secrets import SECRETS
from worker.cli.exporter import exporter

DIRECTORY = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = DIRECTORY / "base"
MANIFESTS = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
ROLE_OF = {"ondemand": "worker"}  # they share a Secret

Manifest = dict[str, Any]


def documents(*kinds: str) -> Iterator[Manifest]:
    for path in MANIFESTS:
        yield from (each for each in YAML(typ="safe").load_all(path) if each["kind"] in kinds)


PODS = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in documents("Deployment", "Job")}
pods = pytest.mark.parametrize("name", sorted(PODS))


def container(name: str) -> Manifest:
    (only,) = PODS[name]["containers"]
    return dict(only)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_accepts_a_manifest(path: Path) -> None:
    """Strictly, because Kubernetes ignores a misspelt field, and with it a limit or a probe."""
    validate = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run([validate, "--strict", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_kustomize_reads_every_manifest() -> None:
    kustomization = YAML(typ="safe").load(BASE / "kustomization.yaml")

    assert set(kustomization["resources"]) == {path.name for path in MANIFESTS}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
@pytest.mark.parametrize("directory", ["base", "workload-identity"])
def test_kustomize_builds_what_kubernetes_accepts(directory: str, tmp_path: Path) -> None:
    """Patches and generated names leave valid objects."""
    built = tmp_path / "built.yaml"
    done = subprocess.run(["kubectl", "kustomize", DIRECTORY / directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built.write_text(done.stdout)

    validate = Path(sys.executable).with_name("kubernetes-validate")
    subprocess.run([validate, "--strict", built], capture_output=True, check=True)


@pods
def test_a_pod_gets_only_the_secrets_of_its_role(name: str) -> None:
    """The README names the keys of each Secret; they are those of the compose file."""
    (secret,) = [volume["secret"] for volume in PODS[name]["volumes"] if "secret" in volume]
    role = ROLE_OF.get(name, name)
    readme = (DIRECTORY / "README.md").read_text()
    (line,) = [line for line in readme.replace("\\\n", "").splitlines() if f"k {role}-secrets" in line]

    assert secret["secretName"] == f"{role}-secrets"
    assert {part.split("=")[1] for part in line.split() if part.startswith("--from-file")} == SECRETS[name]


@pods
def test_a_pod_runs_without_privileges(name: str) -> None:
    """It is no root, has no capability, no token of the API server, and cannot change files of the image."""
    pod, security = PODS[name], container(name)["securityContext"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(name)["resources"]["limits"]["memory"]


@pods
def test_services_beside_a_pod_do_not_become_its_settings(name: str) -> None:
    """A Service named `worker` or `flower` would put WORKER_PORT or FLOWER_PORT into the environment."""
    assert PODS[name]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", ["worker", "ondemand"])
def test_a_worker_has_time_to_stop(name: str) -> None:
    """A batch ends with its lease, which is 170 seconds at most."""
    assert PODS[name]["terminationGracePeriodSeconds"] >= 180


@pytest.mark.parametrize("name", ["worker", "ondemand", "beat"])
def test_no_probe_depends_on_redis(name: str) -> None:
    """A probe through Redis would restart all workers while Redis is down."""
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container(name))


def test_no_budget_keeps_a_node_from_being_drained() -> None:
    """A budget allows one pod of each kind to go."""
    budgets = {each["metadata"]["name"]: each["spec"]["maxUnavailable"] for each in documents("PodDisruptionBudget")}

    assert budgets == {"worker": 1, "ondemand": 1}


def test_only_workers_reach_microsoft() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in documents("NetworkPolicy")}
    open_ports = {rule["port"] for each in policies["default"]["egress"] for rule in each["ports"]}
    (selected,) = policies["microsoft"]["podSelector"]["matchExpressions"]

    assert policies["default"]["podSelector"] == {}
    assert policies["default"]["policyTypes"] == ["Ingress", "Egress"]
    assert 443 not in open_ports
    assert selected["values"] == ["worker", "ondemand"]


def test_prometheus_finds_the_exporter() -> None:
    """Its Service, its container and the network policy name the port on which it listens."""
    (default,) = [option.default for option in exporter.params if option.name == "port"]
    (service,) = documents("Service")
    (policy,) = [each for each in documents("NetworkPolicy") if each["metadata"]["name"] == "metrics"]

    assert container("exporter")["ports"] == [{"name": "metrics", "containerPort": default}]
    assert [port["port"] for port in service["spec"]["ports"]] == [default]
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": default}]
