"""Structured logs of this package and its libraries. No caller logs a secret; values that look like one are masked."""

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Literal, TextIO

import structlog
from redis.exceptions import RedisError

from worker.log_limit import LogLimit
from worker.redis_failures import reason

LogFormat = Literal["auto", "console", "json"]

_MASKED = re.compile(r"token|secret|password|authorization|assertion|cookie", re.IGNORECASE)
_HARMLESS = frozenset({"token_expiry"})
_JWT = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*")
_JSON = json.JSONEncoder()
_CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("log_context", default=MappingProxyType({}))
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s/]+(?=@)")


def configure(*, level: str = "INFO", log_format: LogFormat = "auto") -> None:
    """Send every log line of the process to standard error, as JSON or for people.

    ``auto`` means for people if standard error is a terminal.
    """
    for_people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if for_people else _as_json
    # `_describe` comes after `mask`, because nothing that it adds is secret.
    shared: list[Any] = [structlog.processors.format_exc_info, mask, _describe]
    # The product logs a line per refresh, so its lines go straight to the stream. The standard library's logging, which
    # the lines of other libraries take, costs a multiple.
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=partial(_StreamWriter, sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.PositionalArgumentsFormatter(),
                *shared,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kombu.asynchronous.hub").addFilter(_RedisErrors())
    logging.getLogger("celery.app.trace").addFilter(_is_unexpected)
    # MSAL logs a whole response if it cannot parse it. urllib3 and the broker libraries log every connection.
    logging.getLogger("msal").setLevel(logging.CRITICAL)
    for verbose in ("urllib3", "kombu", "amqp", "tornado.access", "celery.bootsteps", "celery.utils.functional"):
        logging.getLogger(verbose).setLevel(logging.WARNING)


def configure_consumer() -> None:
    """Send the lines of a consumer's process to the standard library's logger ``worker``, as other libraries do.

    If the application has configured structlog, they go there instead. With its defaults structlog would print them to
    standard output, and with each traceback the values of all variables.
    """
    if structlog.is_configured():
        return
    # 0 means no padding. It is positional because the name of the parameter differs between structlog's versions.
    as_text = structlog.dev.ConsoleRenderer(0, colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, mask, as_text],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def set_context(**fields: str) -> None:
    """Add these fields to every line of this thread from now on, instead of those of the last call."""
    _CONTEXT.set(fields)


def _describe(logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add time, level, logger and context. structlog's own processors for these take half of the time of a line."""
    for name, value in _CONTEXT.get().items():
        event.setdefault(name, value)
    if "logger" not in event:  # lines of other libraries have it already
        event["logger"] = logger.name
    event["level"] = level
    event["timestamp"] = _now()
    return event


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")  # noqa: TID251 - nothing is decided by a line's time


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _JSON.encode(event)  # structlog's own renderer would make an encoder for every line


def _is_unexpected(record: logging.LogRecord) -> bool:
    """False for the failure of a task by a store that is away, which the worker logs once a minute itself."""
    return not (isinstance(record.args, Mapping) and record.args.get("description") == "raised expected")


class _RedisErrors(logging.Filter):
    """Makes one line a minute of a Redis that refuses the timers of a worker. kombu logs a traceback for each."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LogLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, RedisError):
            return True
        record.msg, record.args, record.exc_info = "Broker refuses a timer: %s", (reason(error),), None
        return self._limit.allows(record.getMessage())


class _StreamWriter(structlog.WriteLogger):
    """Writes the lines of one logger to a stream."""

    def __init__(self, stream: TextIO, name: str = "") -> None:
        super().__init__(stream)
        self.name = name


def mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask JWTs, passwords in URLs, and the values under names that look secret, at any depth and of any library."""
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


@lru_cache(maxsize=1024)
def _is_masked(name: str) -> bool:
    return _MASKED.search(name) is not None and name not in _HARMLESS


def _masked(name: str, value: Any) -> Any:
    if _is_masked(name):
        return "***"
    match value:
        case str():  # first, because most values are strings
            # Most strings contain neither, and these searches take a tenth of the time of the regular expressions.
            value = _JWT.sub("***", value) if "eyJ" in value else value
            return _URL_PASSWORD.sub(r"\1:***", value) if "://" in value else value
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): _masked(str(key), inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked("", inner) for inner in value]
        case _:
            return _masked("", repr(value))
