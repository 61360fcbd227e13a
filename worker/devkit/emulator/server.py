"""Serves the emulator over real TLS in a thread of its own, with a temporary certificate authority."""

import asyncio
import ipaddress
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import trustme
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from worker.devkit.emulator.core import Emulator
from worker.devkit.emulator.registrations import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET
from worker.devkit.emulator.tokens import TENANT_ID

_START_LIMIT = 10  # seconds
_STOP_LIMIT = 10  # seconds


class EmulatorServer:
    """Serves an emulator as a context manager, or from `start` to `stop`. A restart keeps the port.

    `directory` receives the PEM of the certificate authority. Raises ValueError for a host that is not loopback.
    """

    def __init__(
        self, directory: Path, emulator: Emulator | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not a loopback address; every client of the emulator can sign in as any user")
        self.emulator = Emulator() if emulator is None else emulator
        self.host, self.port = host, port
        authority = trustme.CA()
        self.ca_bundle = directory / "emulator-ca.pem"
        authority.cert_pem.write_to_path(self.ca_bundle)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1", host).configure_cert(self._tls)
        self._running: tuple[_Server, threading.Thread] | None = None

    @property
    def base_url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def authority(self) -> str:
        return f"{self.base_url}/common"

    @property
    def oidc_authority(self) -> str:
        return f"{self.base_url}/{TENANT_ID}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a worker or consumer that uses the emulator in Microsoft's place."""
        return {
            "WORKER_AUTHORITY": self.authority,
            "WORKER_CA_BUNDLE": str(self.ca_bundle),
            "WORKER_CLIENT_ID": DEFAULT_CLIENT_ID,
            "WORKER_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
        }

    def start(self) -> None:
        """Start the server. Returns once it accepts connections. Raises OSError if the port is in use."""
        if self._running is not None:
            raise RuntimeError("the emulator is already running")
        listener = socket.create_server((self.host, self.port))
        self.port = listener.getsockname()[1]
        self.emulator.base_url = self.base_url
        server = _Server(self.emulator, self._tls)
        thread = threading.Thread(target=server.run_on, args=(listener,), name="emulator", daemon=True)
        thread.start()
        if not server.ready.wait(_START_LIMIT) or not server.started:
            server.should_exit = True
            raise RuntimeError("the emulator did not start")
        self._running = server, thread

    def stop(self) -> None:
        """Stop the server and reset connections that still wait for a response. Does nothing if it is not running."""
        if self._running is None:
            return
        (server, thread), self._running = self._running, None
        server.should_exit = True
        thread.join(_STOP_LIMIT)
        if thread.is_alive():
            raise RuntimeError("the emulator did not stop")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(uvicorn.Server):
    def __init__(self, emulator: Emulator, tls: ssl.SSLContext) -> None:
        config = uvicorn.Config(
            emulator.app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
            ssl_context_factory=lambda _config, _default: tls,
        )
        super().__init__(config)
        self.ready = threading.Event()

    def run_on(self, listener: socket.socket) -> None:
        # Tests may freeze the time around a running server, so the loop's clock must not be frozen.
        try:
            with asyncio.Runner(loop_factory=_RealTimeLoop) as runner:
                runner.run(self.serve([listener]))
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state["stopping"] = asyncio.Event()
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state["stopping"].set()
        for connection in self.server_state.connections:
            # A client that keeps an idle connection in its pool would not answer the closing message of TLS.
            if isinstance(connection, _Protocol) and connection.idle:
                connection.transport.abort()
        await super().shutdown(sockets)


class _RealTimeLoop(asyncio.SelectorEventLoop):
    def time(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)


class _Protocol(H11Protocol):
    """Gives each request a function that resets its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        # asyncio sets it only for sockets that name their protocol. Without it, each response waits 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def abort() -> None:
            if transport.is_closing():
                return
            # With a linger time of zero, the close sends a TCP reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

        self.app_state = {**self.app_state, "abort": abort}

    @property
    def idle(self) -> bool:
        # uvicorn declares that there is always a cycle, but before the first request there is none.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete
