"""A server that imitates Exchange and Gmail over real TLS where Dovecot cannot be made to.

It knows the dialogue of a login and a few commands, and records what each client sends and how it leaves.
"""

import base64
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from worker.domain.account import MailServers

CHALLENGE = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}').decode()
HANG_UP = "hang up"


@dataclass(slots=True)
class Exchange:
    """`verdicts` are the responses to tokens, one per login.

    The last one repeats, and an empty one accepts the token.
    """

    greeting: str | None = None  # instead of the usual one
    verdicts: list[str] = field(default_factory=list)
    challenge: str | None = None  # sent before a verdict that rejects, as Gmail does
    trouble: str = ""  # IMAP: the response to every command after the login
    starttls: bool = True
    linger: float = 0  # seconds until the server closes a connection that the client has ended
    received: list[str] = field(default_factory=list)  # lines, except tokens
    tokens: list[str] = field(default_factory=list)  # XOAUTH2 responses, decoded
    logouts: int = 0
    lost: int = 0  # connections that are closed

    def verdict(self) -> str:
        if len(self.verdicts) > 1:
            return self.verdicts.pop(0)
        return self.verdicts[0] if self.verdicts else ""


class _Client(socketserver.BaseRequestHandler):
    """One connection, encrypted from the start or by STARTTLS."""

    server: "_Server"

    def setup(self) -> None:
        self.exchange = self.server.exchange
        self.request.settimeout(60)
        self.rfile: BinaryIO = self.request.makefile("rb")

    def handle(self) -> None:
        with suppress(OSError):
            if not self.server.plain:
                self.encrypt()
            self.server.dialect(self)
        time.sleep(self.exchange.linger)

    def finish(self) -> None:
        self.rfile.close()
        self.request.close()
        self.exchange.lost += 1

    def encrypt(self) -> None:
        self.rfile.close()
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile = self.request.makefile("rb")

    def say(self, line: str) -> None:
        self.request.sendall(f"{line}\r\n".encode())

    def lines(self) -> Iterator[str]:
        while line := self.rfile.readline():
            text = line.decode().strip()
            self.exchange.received.append(text)
            yield text

    def sasl(self, prompt: str) -> str | None:
        """Run the dialogue after AUTH or AUTHENTICATE. Returns the verdict, or None if the server has hung up."""
        self.say(prompt)
        response = self.rfile.readline().strip()
        self.exchange.tokens.append(base64.b64decode(response).decode())
        verdict = self.exchange.verdict()
        if verdict and self.exchange.challenge is not None:
            self.say(prompt + self.exchange.challenge)
            answer = self.rfile.readline()
            assert answer == b"\r\n", f"not an empty line: {answer!r}"
        while verdict == "endless":
            self.say(prompt)
            if not self.rfile.readline():
                return None
        return None if verdict == HANG_UP else verdict.format(response=response.decode())


def imap(client: _Client) -> None:
    exchange, pushed = client.exchange, False
    client.say(exchange.greeting or "* OK The Microsoft Exchange IMAP4 service is ready.")
    for line in client.lines():
        tag, command, *_ = line.split()
        match command:
            case "CAPABILITY":
                client.say("* CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT IDLE")
                client.say(f"{tag} OK CAPABILITY completed.")
            case "AUTHENTICATE":
                verdict = client.sasl("+ ")
                if verdict is None:
                    return
                client.say(f"{tag} {verdict or 'OK AUTHENTICATE completed.'}")
            case "IDLE":
                client.say("+ IDLE accepted, awaiting DONE command.")
                if not pushed:
                    client.say("* 1 EXISTS")
                pushed = next(client.lines(), "") == "DONE"
                client.say(f"{tag} OK IDLE completed.")
            case "LOGOUT":
                exchange.logouts += 1
                client.say("* BYE Microsoft Exchange Server IMAP4 server signing off.")
                client.say(f"{tag} OK LOGOUT completed.")
                return
            case _ if exchange.trouble:
                client.say(f"{tag} {exchange.trouble}")
            case _:
                client.say("* 0 EXISTS" if command == "SELECT" else f'* {command} (\\Noselect) "/" ""')
                client.say(f"{tag} OK {command} completed.")


def pop(client: _Client) -> None:
    client.say(client.exchange.greeting or "+OK The Microsoft Exchange POP3 service is ready.")
    for line in client.lines():
        match line.split()[0]:
            case "AUTH":
                verdict = client.sasl("+ ")
                if verdict is None:
                    return
                client.say(verdict or "+OK User successfully authenticated.")
            case "QUIT":
                client.exchange.logouts += 1
                client.say("+OK Microsoft Exchange Server POP3 server signing off.")
                return
            case _:
                client.say("+OK")


def smtp(client: _Client) -> None:
    client.say(client.exchange.greeting or "220 smtp.contoso.com Microsoft ESMTP MAIL Service ready")
    for line in client.lines():
        match line.split()[0].upper():
            case "EHLO":
                client.say("250-smtp.contoso.com Hello")
                client.say("250-STARTTLS" if client.exchange.starttls else "250-PIPELINING")
                client.say("250 AUTH LOGIN XOAUTH2")
            case "STARTTLS":
                client.say("220 2.0.0 SMTP server ready")
                client.encrypt()
            case "AUTH":
                verdict = client.sasl("334 ")
                if verdict is None:
                    return
                client.say(verdict or "235 2.7.0 Authentication successful")
            case "QUIT":
                client.exchange.logouts += 1
                client.say("221 2.0.0 Service closing transmission channel")
                return
            case _:
                client.say("250 2.0.0 OK")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(
        self, exchange: Exchange, tls: ssl.SSLContext, dialect: Callable[[_Client], None], address: str
    ) -> None:
        self.exchange, self.tls, self.dialect = exchange, tls, dialect
        self.plain = dialect is smtp
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), _Client)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may reject the certificate. The test checks that on its own side."""


@contextmanager
def serving(exchange: Exchange, tls: ssl.SSLContext, address: str = "127.0.0.1") -> Iterator[MailServers]:
    """Serve all three protocols until the block ends."""
    servers = [_Server(exchange, tls, dialect, address) for dialect in (imap, pop, smtp)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    ports = [server.server_address[1] for server in servers]
    try:
        yield MailServers(
            imap_host="localhost",
            imap_port=ports[0],
            pop_host="localhost",
            pop_port=ports[1],
            smtp_host="localhost",
            smtp_port=ports[2],
        )
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
