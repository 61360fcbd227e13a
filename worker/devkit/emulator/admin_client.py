"""Calls the admin API of an emulator in another process."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_TIMEOUT = 10  # seconds


class EmulatorError(Exception):
    """The emulator cannot be reached, or has refused a call; one sentence."""


class AdminClient:
    """The emulator behind an authority. Raises EmulatorError for an authority that is not on loopback."""

    def __init__(self, authority: str, ca_bundle: Path) -> None:
        parts = urlsplit(authority)
        if parts.scheme != "https" or parts.hostname not in _LOOPBACK:
            raise EmulatorError("the authority is not the emulator's: set WORKER_AUTHORITY as the emulator prints it")
        self._host, self._port = parts.hostname, parts.port
        try:
            self._tls = ssl.create_default_context(cafile=str(ca_bundle))
        except OSError as error:
            raise EmulatorError(f"{ca_bundle} cannot be used as CA bundle: {error.strerror}") from None

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a call below ``/_emulator/``."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT, context=self._tls)
        try:
            connection.request(method, f"/_emulator/{quote(path, safe='/?=&@')}", json.dumps(body) if body else None)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise EmulatorError(f"no emulator answers at {self._host}:{self._port}: {reason}") from None
        finally:
            connection.close()
        if not isinstance(answer, dict) or response.status != http.client.OK:
            raise EmulatorError(str(answer.get("detail", "the emulator has refused the call")))
        return answer
