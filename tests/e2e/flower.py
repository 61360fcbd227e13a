"""A running Flower, read over HTTP as its users do."""

import base64
import json
import socket
from contextlib import suppress
from typing import Any

import urllib3

from tests.e2e.deployment import Deployment
from tests.waiting import HANG_LIMIT, wait_for

LOGIN = "ops:correct-horse"
_ATTEMPTS = 3  # another process may take the port first


class Pages:
    """The pages of a Flower, read with the login."""

    def __init__(self, url: str, login: str) -> None:
        self.url = url
        self._login = login
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(HANG_LIMIT))

    def status(self, path: str, login: str | None = None, *, method: str = "GET") -> int | None:
        """The status of a page. None without a response."""
        with suppress(urllib3.exceptions.HTTPError):
            return self._request(path, login, method).status
        return None

    def text(self, path: str) -> str:
        """The text of a page. Fails if its status is not 200."""
        response = self._request(path, self._login)
        assert response.status == 200, (path, response.status, response.data[-500:])
        return response.data.decode()

    def json(self, path: str) -> Any:
        return json.loads(self.text(path))

    def _request(self, path: str, login: str | None, method: str = "GET") -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
        return self._http.request(method, self.url + path, headers=headers, redirect=False)


class Flower(Pages):
    """Starts in the constructor, which returns after the first response."""

    def __init__(self, deployment: Deployment, **environment: str) -> None:
        for _ in range(_ATTEMPTS):
            self.port = free_port()
            super().__init__(f"http://127.0.0.1:{self.port}", LOGIN)
            self.process = deployment.celery("flower", FLOWER_PORT=str(self.port), **environment)
            wait_for(lambda: self._answers() or not self.process.alive(), about="Flower to answer")
            if self.process.alive():
                return
        raise AssertionError(f"Flower did not start: {self.process.output()[-3000:]}")

    def _answers(self) -> bool:
        return self.status("/") is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
