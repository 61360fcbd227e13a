"""The compose file as a running project of its own, with new secrets and the images of this checkout."""

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
IMAGE = "token-refresh-worker"


class Compose:
    """One project. Commands fail the test with what they have printed."""

    def __init__(self, directory: Path, name: str, *profiles: str) -> None:
        shutil.copy(ROOT / "docker-compose.yml", directory)
        shutil.copytree(ROOT / "deploy", directory / "deploy")
        self._directory = directory
        self._name = name
        self._profiles = [option for profile in profiles for option in ("--profile", profile)]
        spec = importlib.util.find_spec("compose")
        assert spec is not None
        assert spec.origin is not None
        self._program = Path(spec.origin).with_name("docker-compose")

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        command: list[str | Path] = [
            self._program,
            "--project-name",
            self._name,
            "--file",
            self._directory / "docker-compose.yml",
        ]
        return run(*command, *self._profiles, *arguments, stdin=stdin)

    def start(self, *services: str) -> None:
        """Start the services and what they depend on; returns when all are healthy."""
        build = ["--no-build", "--pull", "never"] if os.environ.get("PREBUILT") else ["--build"]
        try:
            self("up", "--detach", "--wait", *build, *services)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self('logs', '--tail', '20')}") from None

    def execute(self, service: str, *command: str, stdin: str | None = None) -> str:
        return self("exec", "--no-TTY", service, *command, stdin=stdin)

    def json(self, service: str, *command: str) -> Any:
        return json.loads(self.execute(service, *command))

    def inspect(self, service: str) -> Any:
        """State and configuration of the service's only container, running or not."""
        (container,) = self("ps", "--all", "--quiet", service).split()
        (found,) = json.loads(run("docker", "inspect", container))
        return found

    def is_healthy(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def wait_until_healthy(self, *services: str) -> None:
        for service in services:
            wait_for(lambda service=service: self.is_healthy(service), about=f"{service} to be healthy")  # type: ignore[misc]

    def kill(self, service: str) -> None:
        """SIGKILL the service's main process from outside, as a lack of memory does. Returns when it was restarted."""
        before = self.inspect(service)
        pid = before["State"]["Pid"]
        run("docker", "run", "--rm", "--pid=host", "--user=0", IMAGE, "sh", "-c", f"kill -9 {pid}")
        wait_for(
            lambda: self.inspect(service)["RestartCount"] > before["RestartCount"], about=f"{service} to be restarted"
        )


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[-3:]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def random_password() -> str:
    return secrets.token_hex(24)
