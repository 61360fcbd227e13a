"""Structured logs for this package and everything beneath it. Nothing secret gets here, and what might is masked."""

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

LogFormat = Literal["auto", "console", "json"]

_MASKED = re.compile(r"token|secret|password|authorization|assertion|cookie", re.IGNORECASE)
_HARMLESS = frozenset({"token_expiry"})
_JWT = re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*")
_JSON = json.JSONEncoder()
_AT_WORK: ContextVar[Mapping[str, str]] = ContextVar("at_work", default=MappingProxyType({}))
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s/]+(?=@)")


def configure(*, level: str = "INFO", log_format: LogFormat = "auto") -> None:
    """Send every log line of the process to standard error, as JSON or for people (``auto``: if they are there)."""
    for_people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if for_people else _as_json
    # Nothing that is added by _describe needs a mask.
    shared: list[Any] = [structlog.processors.format_exc_info, mask, _describe]
    # Our own lines, of which there is one per refresh, go straight to the stream: the way through the standard
    # library's logging, which is for what others log, costs a multiple.
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=partial(_Lines, sys.stderr),
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
    # MSAL logs whole answers when it cannot parse them; urllib3 and the brokers talk at every connection.
    logging.getLogger("msal").setLevel(logging.CRITICAL)
    for talkative in ("urllib3", "kombu", "amqp", "tornado.access", "celery.bootsteps", "celery.utils.functional"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def configure_consumer() -> None:
    """Leave the lines of a consumer's process to the standard library's logging, under ``worker``, as any library does.

    An application that has configured structlog itself has them there instead. Left to its defaults, structlog would
    print them to standard output, and with each traceback the values of all variables.
    """
    if structlog.is_configured():
        return
    # 0: no padding, by a name that structlog has changed.
    as_text = structlog.dev.ConsoleRenderer(0, colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, mask, as_text],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def at_work(**what: str) -> None:
    """Say so in every line of this thread, until something else is at work; nothing, if nothing is given."""
    _AT_WORK.set(what)


def _describe(logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how bad, by whom, at work on what. structlog has a processor for each of these; together they are
    half of what a line costs."""
    for name, value in _AT_WORK.get().items():
        event.setdefault(name, value)
    if "logger" not in event:  # as what others log has it already
        event["logger"] = logger.name
    event["level"] = level
    event["timestamp"] = _now()
    return event


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")  # noqa: TID251 - of a line; nothing hangs on it


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _JSON.encode(event)  # structlog's own renderer makes an encoder for every line


class _Lines(structlog.WriteLogger):
    """Writes lines, and knows whose they are."""

    def __init__(self, stream: TextIO, name: str = "") -> None:
        super().__init__(stream)
        self.name = name


def mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank values under secret-looking names, JWTs and passwords in URLs, whoever logged them, however deep."""
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
        case str():  # first: most values are
            # Most hold neither, and looking for these is a tenth of the regular expressions' cost.
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
