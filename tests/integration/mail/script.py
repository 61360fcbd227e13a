"""Mail servers that follow a script over real TLS, as mail-servers.json and the tests write them.

A case has one script per connection, and the last one serves all connections that follow. The file explains the steps.
FLOOD, which repeats a line without end, and RAW, which sends a text without a line end, are only known here.
"""

import base64
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.domain.account import MailServers

Scripts = Sequence[Sequence[str]]

_CASES = Path(__file__).with_name("mail-servers.json")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST


def cases() -> Iterator[tuple[str, str, Scripts, float]]:
    """The id, library, scripts and timeout in seconds of each case."""
    for case in json.loads(_CASES.read_text())["cases"]:
        for library, scripts in case["scripts"].items():
            yield case["id"], library, scripts, case["timeout"]


@dataclass(slots=True)
class Scripted:
    """Records the client's side of the connections."""

    scripts: Scripts
    tokens: list[str] = field(default_factory=list)  # XOAUTH2 responses, decoded
    unexpected: list[str] = field(default_factory=list)  # lines that differ from the script
    opened: int = 0
    closed: int = 0

    def next_script(self) -> Sequence[str]:
        self.opened += 1
        return self.scripts[min(self.opened, len(self.scripts)) - 1]


class _Connection(socketserver.BaseRequestHandler):
    server: "_Server"

    def setup(self) -> None:
        self.tag = self.response = ""
        self.request.settimeout(60)
        self.reader = self.request.makefile("rb")

    def handle(self) -> None:
        steps = self.server.seen.next_script()
        with suppress(OSError):
            if not self.server.plain and steps[0] != "NOTLS":
                self.encrypt()
            for step in steps:
                self.take(step)

    def finish(self) -> None:
        self.reader.close()
        with suppress(OSError):
            self.request.close()
        self.server.seen.closed += 1

    def take(self, step: str) -> None:
        verb, _, rest = step.partition(" ")
        actions: dict[str, Callable[[str], None]] = {
            "S:": self.say,
            "S+:": lambda lines: self.say("\r\n".join(lines.split("|"))),
            "C:": self.hear,
            "C*": self.hear,
            "TLS": lambda _: self.encrypt(),
            "SLEEP": lambda seconds: time.sleep(float(seconds)),
            "DRIP": self.drip,
            "SILENT": lambda _: self.wait(),
            "FLOOD": self.flood,
            "RAW": lambda text: self.request.sendall(text.encode()),
            "RST": lambda _: self.reset(),
            "CLOSE": lambda _: self.close(),
            "NOTLS": lambda _: None,
        }
        actions[verb](rest)

    def encrypt(self) -> None:
        self.reader.close()
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.reader = self.request.makefile("rb")

    def say(self, text: str) -> None:
        pieces = " ".join(self.response[start : start + 12] for start in range(0, len(self.response), 12))
        line = text.replace("{tag}", self.tag).replace("{resp}", self.response).replace("{resp:12}", pieces[:1_000])
        self.request.sendall(f"{line}\r\n".encode())

    def flood(self, line: str) -> None:
        while True:
            self.request.sendall(f"{line}\r\n".encode() * 1_000)

    def wait(self) -> None:
        while self.request.recv(4096):
            pass

    def reset(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self) -> None:
        self.reader.close()
        self.request.close()

    def drip(self, rest: str) -> None:
        pause, _, text = rest.partition(" ")
        for byte in f"{text}\r\n".encode():
            self.request.sendall(bytes([byte]))
            time.sleep(float(pause))

    def hear(self, expected: str) -> None:
        raw = self.reader.readline()
        if not raw:
            raise ConnectionError
        line = raw.decode().strip()
        if not expected:
            self.response = line
            with suppress(ValueError):
                response = base64.b64decode(line, validate=True).decode()
                self.server.seen.tokens.extend([response] * response.startswith("user="))
            return
        tag, _, command = line.partition(" ")
        self.tag = tag
        if not (command if self.server.tagged else line).upper().startswith(expected.upper()):
            self.server.seen.unexpected.append(line)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, seen: Scripted, tls: ssl.SSLContext, protocol: str) -> None:
        self.seen, self.tls = seen, tls
        self.plain, self.tagged = protocol == "smtp", protocol == "imap"
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may close the connection. The test checks that on its own side."""


@contextmanager
def serving_script(seen: Scripted, tls: ssl.SSLContext, protocol: str) -> Iterator[MailServers]:
    """The server of one protocol (``imap``, ``pop`` or ``smtp``), until the block ends."""
    with _Server(seen, tls, protocol) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        port = server.server_address[1]
        try:
            yield MailServers(**{f"{protocol}_host": "localhost", f"{protocol}_port": port})  # type: ignore[arg-type]
        finally:
            server.shutdown()
            thread.join()
