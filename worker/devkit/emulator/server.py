"""The emulator behind real TLS on a thread of its own, with a throwaway certificate authority."""

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
from worker.devkit.emulator.tokens import TENANT_ID

_START_SECONDS = 10
_STOP_SECONDS = 10


class EmulatorServer:
    """Serves an emulator as a context manager or from `start` to `stop`; a restart keeps the port.

    `directory` receives the certificate authority's PEM. Refuses a host that is not loopback.
    """

    def __init__(
        self, directory: Path, emulator: Emulator | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not a loopback address; the emulator lets anybody sign in as anybody")
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

    def start(self) -> None:
        """Returns once connections are accepted; raises OSError if the port is taken."""
        if self._running is not None:
            raise RuntimeError("the emulator is already running")
        listener = socket.create_server((self.host, self.port))
        self.port = listener.getsockname()[1]
        self.emulator.base_url = self.base_url
        server = _Server(self.emulator, self._tls)
        thread = threading.Thread(target=server.run_on, args=(listener,), name="emulator", daemon=True)
        thread.start()
        if not server.ready.wait(_START_SECONDS) or not server.started:
            server.should_exit = True
            raise RuntimeError("the emulator did not start")
        self._running = server, thread

    def stop(self) -> None:
        """Ends the server; requests still hanging are cut off. Does nothing if it is not running."""
        if self._running is None:
            return
        (server, thread), self._running = self._running, None
        server.should_exit = True
        thread.join(_STOP_SECONDS)
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
        # The loop's clock cannot be frozen, so that tests may freeze time around a running server.
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
            # A client that keeps an idle connection in its pool would not answer the TLS farewell.
            if isinstance(connection, _Protocol) and connection.idle:
                connection.transport.abort()
        await super().shutdown(sockets)


class _RealTimeLoop(asyncio.SelectorEventLoop):
    def time(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)


class _Protocol(H11Protocol):
    """Hands each request the means to reset its own connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        # asyncio does so only for sockets that name their protocol; without it, every answer waits 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def abort() -> None:
            if transport.is_closing():
                return
            # Zero linger turns the close into a TCP reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

        self.app_state = {**self.app_state, "abort": abort}

    @property
    def idle(self) -> bool:
        # uvicorn declares the cycle as always there; before the first request it is not.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete
