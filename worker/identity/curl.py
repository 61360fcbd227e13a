"""HTTP over libcurl: many requests at a time from one thread, which drives all sockets itself.

Threads that each wait for one response cost more than the responses: with 16 of them competing for the interpreter, a
request took several times the CPU (docs/benchmarks.md).
"""

import io
import select
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import pycurl

from worker.domain.http import HttpResponse
from worker.domain.proxy import DIRECT, Proxy, ProxyRules

Key = TypeVar("Key")

# In seconds of waiting. libcurl's own limits would also count the time in which the caller does something else, e.g.
# waits for a database, and libcurl checks them before it reads a response that has arrived in the meantime.
_CONNECT_TIMEOUT = 3.0  # until the connection is established, TLS included
_RESPONSE_TIMEOUT = 15.0  # until the response is complete, however slowly it arrives
_MAX_BODY = 1 << 20  # bytes; a real response has about 6 KB
_ERROR_CODES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_RESOLVE_PROXY: "proxy_unreachable",
    pycurl.E_COULDNT_CONNECT: "connect_failed",
    pycurl.E_URL_MALFORMAT: "connect_failed",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_CIPHER: "tls",
}
_BODY_ERRORS = (pycurl.E_FILESIZE_EXCEEDED, pycurl.E_BAD_CONTENT_ENCODING)  # there is a status, but no usable body
_POLL_EVENTS = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}


def monotonic() -> float:
    """Seconds on a clock that no test freezes, because time limits are about real sockets."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(slots=True)
class HttpRequest:
    """A request, ready to be sent: a POST if it has a body, else a GET. ``header_lines`` makes its headers."""

    url: str
    headers: tuple[str, ...] = field(repr=False)
    body: str | None = field(repr=False, default=None)


FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


def with_query(url: str, params: Mapping[str, str] | None) -> str:
    return f"{url}?{urlencode(params)}" if params else url


def header_lines(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The headers of an HttpRequest. Raises ValueError for a header that contains a line break."""
    lines = tuple(f"{name}: {value}" for name, value in headers.items())
    if not "".join(lines).isprintable():
        raise ValueError("a header contains a line break or another control character")
    return lines


class TransferError(Exception):
    """There is no response. ``code`` is stable; after ``timeout`` the server may have received the request."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Transfer(Generic[Key]):
    """A request under way. ``result`` and ``seconds`` are set when ``CurlSession.wait`` returns it."""

    __slots__ = ("body", "head", "key", "proxied", "result", "seconds", "started", "upload")

    result: HttpResponse | TransferError
    seconds: float

    def __init__(self, key: Key, request: HttpRequest, started: float) -> None:
        self.key = key
        self.started = started  # on the session's clock
        self.upload = io.BytesIO((request.body or "").encode("ascii"))
        self.head: list[bytes] = []
        self.body: list[bytes] = []
        self.proxied = False

    def clear(self) -> None:
        """Drop the buffers. They hold tokens, and the handle, which is kept, still refers to them."""
        self.upload.close()
        self.head.clear()
        self.body.clear()


class CurlPool:
    """The connections of a process, kept open for further requests. Thread-safe; create it after a fork."""

    def __init__(self, *, ca_bundle: Path | None, connections: int, proxies: ProxyRules = DIRECT) -> None:
        self._ca_bundle = ca_bundle
        self._connections = connections
        self._proxies = proxies
        self._idle: list[_Handles] = []
        self._lock = threading.Lock()

    def request(self, request: HttpRequest) -> HttpResponse:
        """Send one request and wait. Raises TransferError, and ValueError for a request that cannot be sent."""
        with CurlSession[None](self) as session:
            session.start(None, request)
            while not (finished := session.wait(_RESPONSE_TIMEOUT)):
                pass
        [transfer] = finished
        if isinstance(transfer.result, TransferError):
            raise transfer.result
        return transfer.result

    def acquire(self) -> "_Handles":
        """Handles for one thread, until it releases them."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Handles(self._ca_bundle, self._connections, self._proxies)

    def release(self, handles: "_Handles") -> None:
        with self._lock:
            self._idle.append(handles)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for handles in idle:
            handles.close()


class CurlSession(Generic[Key]):
    """The transfers of one thread, each with a key of the caller. Not thread-safe."""

    def __init__(self, pool: CurlPool) -> None:
        self._pool = pool
        self._handles = pool.acquire()
        self._transfers: dict[pycurl.Curl, Transfer[Key]] = {}
        self._waited = 0.0  # seconds spent in ``wait``: the clock of the time limits
        self._next_check = _CONNECT_TIMEOUT  # on that clock; no transfer reaches its time limit before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handles.release(self._transfers)
        for transfer in self._transfers.values():
            transfer.clear()
        self._transfers.clear()
        self._pool.release(self._handles)

    def __len__(self) -> int:
        """The number of transfers that ``wait`` has not returned yet."""
        return len(self._transfers)

    def start(self, key: Key, request: HttpRequest) -> None:
        """Begin to send a request. Raises ValueError for one that cannot be sent."""
        transfer = Transfer(key, request, self._waited)
        self._transfers[self._handles.start(transfer, request)] = transfer

    def wait(self, seconds: float) -> list[Transfer[Key]]:
        """The transfers that have finished: at once if there are any, else after at most this many seconds."""
        seen, end = monotonic(), self._waited + seconds
        finished = self._handles.finished()
        while self._transfers and not finished and self._waited < end:
            left = max(0.0, min(end, self._next_check) - self._waited)
            self._handles.run(left)
            now = monotonic()
            # If the machine stood still, only the wait that was asked for counts: a response may be readable by now.
            self._waited, seen = self._waited + min(now - seen, left), now
            # Everything that was readable has been read, so a response that is still missing is late.
            finished = self._handles.finished() or self._expired()
        return [self._finish(handle, error) for handle, error in finished]

    def _expired(self) -> list[tuple[pycurl.Curl, int]]:
        """The handles that have reached a time limit, aborted. Examines all transfers only every few seconds."""
        if self._waited < self._next_check:
            return []
        deadlines = {handle: each.started + _time_limit(handle) for handle, each in self._transfers.items()}
        upcoming = [deadline for deadline in deadlines.values() if deadline > self._waited]
        self._next_check = min([self._waited + _CONNECT_TIMEOUT, *upcoming])
        expired = [handle for handle, deadline in deadlines.items() if deadline <= self._waited]
        self._handles.release(expired)
        return [(handle, pycurl.E_OPERATION_TIMEDOUT) for handle in expired]

    def _finish(self, handle: pycurl.Curl, error: int) -> Transfer[Key]:
        transfer = self._transfers.pop(handle)
        expired = error == pycurl.E_OPERATION_TIMEDOUT  # by our time limit: libcurl has none
        transfer.seconds = self._waited - transfer.started if expired else handle.getinfo(pycurl.TOTAL_TIME)
        if error == pycurl.E_OK or error in _BODY_ERRORS:
            body = b"" if error in _BODY_ERRORS else b"".join(transfer.body)
            transfer.result = HttpResponse(handle.getinfo(pycurl.RESPONSE_CODE), _headers(transfer.head), body)
        else:
            transfer.result = TransferError(_error_code(handle, error, proxied=transfer.proxied))
        transfer.clear()
        return transfer


class _Handles:
    """The curl handles and connections of one thread, over our own polling of their sockets. Not thread-safe."""

    def __init__(self, ca_bundle: Path | None, connections: int, proxies: ProxyRules) -> None:
        self._ca_bundle = ca_bundle
        self._proxies = proxies
        self._free: list[pycurl.Curl] = []
        self._poll = select.poll()
        self._timer: float | None = None  # when libcurl wants to be called next, on the monotonic clock
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def start(self, transfer: Transfer[Any], request: HttpRequest) -> pycurl.Curl:
        """Raises ValueError for a request that cannot be sent."""
        handle = self._free.pop() if self._free else _new_handle(self._ca_bundle, self._proxies.proxy)
        _configure(handle, transfer, request)
        if self._proxies.proxy:
            transfer.proxied = self._proxies.for_host(urlsplit(request.url).hostname or "") is not None
            handle.setopt(pycurl.NOPROXY, "" if transfer.proxied else "*")
        self._multi.add_handle(handle)
        return handle

    def run(self, seconds: float) -> None:
        """Wait until a socket or libcurl's timer is ready, at most this many seconds, and let libcurl proceed."""
        if self._timer is not None:
            seconds = min(seconds, max(0.0, self._timer - monotonic()))
        for descriptor, event in self._poll.poll(seconds * 1000):
            self._multi.socket_action(descriptor, _curl_events(event))
        if self._timer is not None and self._timer <= monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def finished(self) -> list[tuple[pycurl.Curl, int]]:
        """The handles whose transfer has succeeded or failed, each with libcurl's error number, released."""
        finished: list[tuple[pycurl.Curl, int]] = []
        more = 1
        while more:
            more, succeeded, failed = self._multi.info_read()
            finished += [(handle, pycurl.E_OK) for handle in succeeded]
            finished += [(handle, error) for handle, error, _ in failed]
        self.release([handle for handle, _ in finished])
        return finished

    def release(self, handles: Iterable[pycurl.Curl]) -> None:
        """Make handles free again. A transfer that is still under way is aborted and its connection closed."""
        for handle in handles:
            self._multi.remove_handle(handle)
            self._free.append(handle)

    def close(self) -> None:
        for handle in self._free:
            handle.close()
        self._multi.close()

    def _watch(self, event: int, descriptor: int, *_: object) -> None:
        if event == pycurl.POLL_REMOVE:
            self._poll.unregister(descriptor)
        else:
            self._poll.register(descriptor, _POLL_EVENTS[event])

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else monotonic() + milliseconds / 1000


def _new_handle(ca_bundle: Path | None, proxy: Proxy | None) -> pycurl.Curl:
    """A handle with the options that all requests share: no time limits, the configured CA and proxy, no cookies, no
    redirects, and nothing of the environment except the system's certificate store."""
    handle: Any = pycurl.Curl()
    handle.setopt(pycurl.NOSIGNAL, 1)
    if proxy:
        _use_proxy(handle, proxy)
    else:
        handle.setopt(pycurl.NOPROXY, "*")
    handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
    handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    handle.setopt(pycurl.MAXFILESIZE, _MAX_BODY)
    handle.setopt(pycurl.ACCEPT_ENCODING, "identity")  # libcurl decompresses all the same if the server compresses
    system = ssl.get_default_verify_paths()
    for option, path in ((pycurl.CAINFO, ca_bundle or system.cafile), (pycurl.CAPATH, system.capath)):
        if path and (option == pycurl.CAINFO or not ca_bundle):
            handle.setopt(option, str(path))
    return handle


def _use_proxy(handle: Any, proxy: Proxy) -> None:
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    handle.setopt(pycurl.PROXY, f"http://{host}:{proxy.port}")
    if proxy.credentials:
        user, _, password = proxy.credentials.reveal().partition(":")
        handle.setopt(pycurl.PROXYUSERNAME, user)
        handle.setopt(pycurl.PROXYPASSWORD, password)


def _configure(handle: pycurl.Curl, transfer: Transfer[Any], request: HttpRequest) -> None:
    handle.setopt(pycurl.URL, request.url)
    handle.setopt(pycurl.HTTPHEADER, request.headers)
    handle.setopt(pycurl.HEADERFUNCTION, transfer.head.append)
    handle.setopt(pycurl.WRITEFUNCTION, transfer.body.append)
    if request.body is None:
        handle.setopt(pycurl.HTTPGET, 1)
        return
    # By default libcurl sends a request again when a kept-alive connection breaks, even if the server may have
    # processed it. Whether to send it again is the schedule's decision, so the body comes from a source without rewind.
    handle.setopt(pycurl.POST, 1)
    handle.setopt(pycurl.POSTFIELDSIZE, len(request.body))
    handle.setopt(pycurl.READFUNCTION, transfer.upload.read)


def _headers(lines: list[bytes]) -> dict[str, str]:
    """The headers of the last response, which informational (1xx) ones may precede."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers[name.lower()] = value.strip()
        elif name.startswith("HTTP/"):
            headers.clear()
    return headers


def _time_limit(handle: pycurl.Curl) -> float:
    """Seconds."""
    return _RESPONSE_TIMEOUT if _is_sent(handle) else _CONNECT_TIMEOUT


def _is_sent(handle: pycurl.Curl) -> bool:
    """Whether the request has been sent, and thus the connection established."""
    return handle.getinfo(pycurl.REQUEST_SIZE) > 0  # type: ignore[no-any-return]  # pycurl has no types


def _error_code(handle: pycurl.Curl, error: int, *, proxied: bool) -> str:
    if proxied and handle.getinfo(pycurl.HTTP_CONNECTCODE) >= HTTPStatus.MULTIPLE_CHOICES:
        return "proxy_refused"
    if proxied and error == pycurl.E_COULDNT_CONNECT:
        return "proxy_unreachable"
    if error == pycurl.E_OPERATION_TIMEDOUT:
        return "timeout" if _is_sent(handle) else "connect_timeout"
    return _ERROR_CODES.get(error, "connection_lost")


def _curl_events(event: int) -> Any:
    if event & ~(select.POLLIN | select.POLLOUT):
        return pycurl.CSELECT_ERR
    return (pycurl.CSELECT_IN if event & select.POLLIN else 0) | (pycurl.CSELECT_OUT if event & select.POLLOUT else 0)
