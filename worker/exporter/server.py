"""The pages of the exporter: ``/metrics``, ``/healthz`` and ``/readyz``."""

import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.domain.errors import ConfigurationError
from worker.exporter.collector import Collector

_log = structlog.get_logger(__name__)

_TEXT = "text/plain; charset=utf-8"
_IDLE = 10.0  # seconds until a connection is closed on which nothing comes


class Server(ThreadingHTTPServer):
    """Listens from the constructor on. Raises ConfigurationError if it cannot."""

    daemon_threads = True

    def __init__(self, host: str, port: int, collector: Collector, *, is_healthy: Callable[[], bool]) -> None:
        self.collector = collector
        self.is_healthy = is_healthy
        self.registry = CollectorRegistry()
        self.registry.register(collector)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__((str(address[0]), port), _Pages)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigurationError(
                f"cannot listen on {host}, port {port}: {reason}; choose others with --host and --port"
            ) from None

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if self.address_family is socket.AF_INET6 else f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - of the base class
        """Log what is no fault of the client, which may go away."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("Page cannot be served")


class _Pages(BaseHTTPRequestHandler):
    server: Server
    timeout: ClassVar[float] = _IDLE
    protocol_version = "HTTP/1.1"
    server_version = "token-worker"
    sys_version = ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._send(HTTPStatus.OK, encode(self.server.registry), content_type)
            case "/healthz":
                self._send_health()
            case "/readyz":
                self._send_readiness()
            case _:
                self._send(HTTPStatus.NOT_FOUND, b"There are /metrics, /healthz and /readyz.\n", _TEXT)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Log no request: there is one every few seconds."""

    def _send_health(self) -> None:
        if self.server.is_healthy():
            self._send(HTTPStatus.OK, b"ok\n", _TEXT)
        else:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, b"accounts are no longer counted: restart\n", _TEXT)

    def _send_readiness(self) -> None:
        silent = [name for name, reading in self.server.collector.readings().items() if reading is None]
        if silent:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"no answer from {', '.join(silent)}\n".encode(), _TEXT)
        else:
            self._send(HTTPStatus.OK, b"ok\n", _TEXT)

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
