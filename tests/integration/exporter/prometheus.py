"""A real Prometheus that scrapes an exporter every second."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from tests.e2e.flower import free_port
from tests.promtool import RULES
from tests.waiting import HANG_LIMIT, wait_for
from worker.devkit.stack.process import Process


class Prometheus:
    """Listens on loopback from the beginning of the block to its end."""

    def __init__(self, directory: Path, target: str) -> None:
        job = {"job_name": "token-worker", "static_configs": [{"targets": [target.removeprefix("http://")]}]}
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [job],
            "rule_files": [str(RULES)],
        }
        (directory / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        self._directory = directory
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(HANG_LIMIT))

    def __enter__(self) -> Self:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        arguments = {
            "config.file": self._directory / "prometheus.yml",
            "storage.tsdb.path": self._directory / "data",
            "web.listen-address": f"127.0.0.1:{port}",
            "log.level": "warn",
        }
        argv = [str(shutil.which("prometheus")), *(f"--{name}={value}" for name, value in arguments.items())]
        self.process = Process(argv, log=self._directory / "prometheus.log")
        wait_for(self._is_ready, about="Prometheus to be ready", processes=[self.process])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()

    def query(self, expression: str) -> list[Any]:
        """The series that the expression yields now. Fails if Prometheus refuses it."""
        answer = self._http.request("GET", f"{self._url}/api/v1/query", fields={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[Any] = answer["data"]["result"]
        return found

    def _is_ready(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return self._http.request("GET", f"{self._url}/-/ready").status == 200
        return False
