"""Why Redis cannot be used, in words that say what to do, without the server's own, which may repeat a value."""

import socket
import ssl
from collections.abc import Iterator, Mapping
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
    ResponseError,
    TimeoutError,  # noqa: A004 - redis names it so
)

_READ_ONLY = "it is read-only, as a replica is; the URL must lead to the primary"

_ADVICE: Mapping[type[BaseException], str] = MappingProxyType(
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
        ssl.SSLCertVerificationError: "its certificate is not trusted; ?ssl_ca_certs=PATH names its authority",
        ssl.SSLError: "it does not speak TLS there; a rediss:// URL needs its TLS port",
        ConnectionRefusedError: "no server listens there",
        ConnectionResetError: "it has ended the connection; a TLS port needs a rediss:// URL",
        socket.gaierror: "the name of its host is not known",
    }
)
_PREFIXES = (
    ("MISCONF", "it cannot write its snapshot to its disk, and refuses writes until it can"),
    ("CROSSSLOT", "it is a cluster; use one primary without cluster mode"),
    ("NOREPLICAS", "it has too few replicas to accept writes (min-replicas-to-write)"),
    ("UNBLOCKED", _READ_ONLY),
    ("NOAUTH", "it demands a password"),
)


def reason(error: BaseException) -> str:
    """The kind of an error of Redis, or of a library that uses it, and what to do about it."""
    return ": ".join(filter(None, (type(error).__name__, _advice(error))))


def advice(error: BaseException) -> str:
    """The advice about an error, or the name of its kind if there is none."""
    return _advice(error) or type(error).__name__


def _advice(error: BaseException) -> str:
    """Of the error, or of the first of its causes for which there is advice: libraries wrap errors."""
    return next(filter(None, map(_own_advice, _causes(error))), "")


def _own_advice(error: BaseException) -> str:
    for kind in type(error).__mro__:
        if kind in _ADVICE:
            return _ADVICE[kind]
    if isinstance(error, ResponseError):
        return next((words for prefix, words in _PREFIXES if str(error).startswith(prefix)), "")
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
