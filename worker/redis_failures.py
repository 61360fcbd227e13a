"""Why Redis cannot be used, in words that say what to do, without the server's own, which may repeat a value."""

import socket
import ssl
from collections.abc import Iterator
from types import MappingProxyType

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

_READ_ONLY = "it is read-only, as a replica is; the URL must lead to the primary"

_ADVICE = MappingProxyType(
    {
        AuthenticationError: "it refuses the user or the password of the URL",
        NoPermissionError: "the user of the URL lacks a right (ACL SETUSER)",
        OutOfMemoryError: "it is full (maxmemory)",
        ReadOnlyError: _READ_ONLY,
        MasterDownError: "it is a replica that has lost its primary; the URL must lead to the primary",
        MovedError: "it is a cluster; use one primary without cluster mode",
        ClusterDownError: "it is a cluster; use one primary without cluster mode",
        BusyLoadingError: "it is still loading its data",
        TimeoutError: "it does not answer in time",
    }
)
_PREFIXES = (
    ("MISCONF", "it cannot write its snapshot to its disk, and refuses writes until it can"),
    ("CROSSSLOT", "it is a cluster; use one primary without cluster mode"),
    ("NOREPLICAS", "it has too few replicas to accept writes (min-replicas-to-write)"),
    ("UNBLOCKED", _READ_ONLY),
    ("NOAUTH", "it demands a password"),
)


def reason(error: Exception) -> str:
    """The kind of an error of Redis, or of a library that uses it, and what to do about it."""
    return ": ".join(filter(None, (type(error).__name__, _advice(error))))


def _advice(error: BaseException) -> str:
    if not isinstance(error, RedisError) and isinstance(error.__cause__, RedisError):  # kombu wraps it
        return _advice(error.__cause__)
    for kind in type(error).__mro__:
        if kind in _ADVICE:
            return _ADVICE[kind]
    if isinstance(error, ResponseError):
        return next((words for prefix, words in _PREFIXES if str(error).startswith(prefix)), "")
    return _of_network(error)


def _of_network(error: BaseException) -> str:
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"its certificate is not trusted ({cause.verify_message}); ?ssl_ca_certs=PATH names its authority"
                )
            case ssl.SSLError():
                return "it does not speak TLS there; a rediss:// URL needs its TLS port"
            case ConnectionRefusedError():
                return "no server listens there"
            case socket.gaierror():
                return "the name of its host is not known"
            case ConnectionResetError():
                return "it has ended the connection; a TLS port needs a rediss:// URL"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
