"""A real Prometheus, from Debian's package, that scrapes one exporter."""

import json
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from bench.site import ROOT, wait_for
from worker.devkit.stack.process import Process

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
_LIMIT = 60.0  # seconds


class Prometheus:
    """Listens on loopback from the beginning of the block to its end. Scrapes each ``interval`` seconds."""

    def __init__(self, directory: Path, target: str, *, interval: int = 1) -> None:
        job = {"job_name": "token-worker", "static_configs": [{"targets": [target.removeprefix("http://")]}]}
        configuration = {
            "global": {"scrape_interval": f"{interval}s", "evaluation_interval": f"{interval}s"},
            "scrape_configs": [job],
            "rule_files": [str(RULES)],
        }
        (directory / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        self._directory = directory
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(_LIMIT))

    def __enter__(self) -> Self:
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        arguments = {
            "config.file": self._directory / "prometheus.yml",
            "storage.tsdb.path": self._directory / "data",
            "web.listen-address": f"127.0.0.1:{port}",
            "log.level": "warn",
        }
        program = shutil.which("prometheus")
        if program is None:
            raise RuntimeError("Prometheus is not installed; on Debian: apt-get install prometheus")
        argv = [program, *(f"--{name}={value}" for name, value in arguments.items())]
        self.process = Process(argv, log=self._directory / "prometheus.log")
        wait_for("Prometheus to be ready", self._is_ready, self.process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()

    def now(self, expression: str) -> list[Any]:
        """The series that the expression yields now. Raises ValueError if Prometheus refuses it."""
        return self._query("query", {"query": expression})

    def over(self, expression: str, *, begin: float, end: float, step: float) -> list[Any]:
        """The series that the expression has yielded. Times are in seconds since the epoch."""
        given = {"query": expression, "start": str(begin), "end": str(end), "step": str(step)}
        return self._query("query_range", given)

    def _query(self, kind: str, given: Mapping[str, str]) -> list[Any]:
        answer = self._http.request("GET", f"{self._url}/api/v1/{kind}", fields=dict(given)).json()
        if answer["status"] != "success":
            raise ValueError(f"{given['query']}: {answer}")
        found: list[Any] = answer["data"]["result"]
        return found

    def _is_ready(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return self._http.request("GET", f"{self._url}/-/ready").status == 200
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
