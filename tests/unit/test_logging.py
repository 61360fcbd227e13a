"""Each event is logged as one JSON object without secrets, no matter which library logs it."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from worker.domain.token import Secret
from worker.observability.logging import configure, mask, set_context

JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJ1cG4iOiJhbm5AY29udG9zby5jb20ifQ.c2lnbmF0dXJlLW9mLWl0"
URL = "redis://:hunter2@cache.example:6379/0"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(name="lines")
def _lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """The lines since the last call, parsed. Afterwards the fixture restores the configuration of logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logger.level for name, logger in _loggers().items()}
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, logger in _loggers().items():
        logger.setLevel(levels.get(name, logging.NOTSET))
    structlog.reset_defaults()


def _loggers() -> dict[str, logging.Logger]:
    known = logging.root.manager.loggerDict
    return {name: logger for name, logger in known.items() if isinstance(logger, logging.Logger)}


def masked(**event: Any) -> dict[str, Any]:
    return dict(mask(None, "info", event))


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "refreshToken",
        "id-token",
        "client_secret",
        "PASSWORD",
        "Authorization",
        "client_assertion",
        "cookie",
        "Set-Cookie",
    ],
)
@pytest.mark.parametrize("value", ["hunter2", 7, ["hunter2"], {"value": "hunter2"}, b"hunter2"], ids=repr)
def test_a_value_under_a_name_that_looks_secret_is_masked(name: str, value: object) -> None:
    """The type of the value does not matter."""
    assert masked(**{name: value}) == {name: "***"}


def test_other_values_are_kept() -> None:
    """The names that operators search for, and text about tokens, must stay readable."""
    event = {
        "event": "Token persisted to database",
        "email": "ann@contoso.com",
        "token_expiry": "2026-03-02T10:30:00Z",
        "url": "https://login.microsoftonline.com/common",
        "version": "1.2.3",
        "count": 7,
    }

    assert masked(**event) == event


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JWT, "***"),
        (f"Bearer {JWT}", "Bearer ***"),
        (f"{JWT} and {JWT}.", "*** and ***."),
        (f'{{"id": "{JWT}"}}', '{"id": "***"}'),
        (URL, "redis://:***@cache.example:6379/0"),
        ("postgresql://app:p%40ss@db/worker", "postgresql://app:***@db/worker"),
        (f"from {URL} to {URL}", "from redis://:***@cache.example:6379/0 to redis://:***@cache.example:6379/0"),
        ("at 12:30, mail to ann@contoso.com", "at 12:30, mail to ann@contoso.com"),
        ("https://example.com:8443/a@b", "https://example.com:8443/a@b"),
    ],
)
def test_tokens_and_passwords_within_a_text_are_masked(text: str, expected: str) -> None:
    """Messages of libraries may contain them."""
    assert masked(event=text) == {"event": expected}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"body": {"refresh_token": "hunter2"}}, id="a name in a mapping"),
        pytest.param([{"client_secret": "hunter2"}], id="a name in a list"),
        pytest.param([URL], id="a URL in a list"),
        pytest.param({"id": JWT, "url": URL}, id="a token and a URL in a mapping"),
        pytest.param((URL,), id="a URL in a tuple"),
        pytest.param(ValueError(URL), id="a URL in an exception"),
        pytest.param(URL.encode(), id="a URL in bytes"),
    ],
)
def test_secrets_at_any_depth_of_a_value_are_masked(lines: Lines, value: object) -> None:
    """Responses of Microsoft and settings are nested."""
    configure(log_format="json")
    structlog.get_logger("worker.test").warning("odd response", details=value)

    [line] = lines()
    assert "hunter2" not in json.dumps(line)
    assert JWT not in json.dumps(line)


@pytest.mark.parametrize("value", [Secret("hunter2"), [Secret("hunter2")], {"value": Secret("hunter2")}], ids=repr)
def test_a_value_of_the_type_secret_is_masked_under_any_name(lines: Lines, value: object) -> None:
    configure(log_format="json")
    structlog.get_logger("worker.test").warning("odd", details=value)

    assert "hunter2" not in json.dumps(lines())


def test_every_event_is_one_line_of_json(lines: Lines) -> None:
    """Lines of the product and of libraries have the same fields. A line break in a message does not split the line."""
    configure(log_format="json")
    structlog.get_logger("worker.test").info("Token persisted\nto database", email="ann@contoso.com")
    logging.getLogger("celery.worker").warning("lost %s of %d", "one\nline", 2)

    ours, theirs = lines()

    assert datetime.fromisoformat(ours.pop("timestamp")).utcoffset() is not None
    assert ours == {
        "event": "Token persisted\nto database",
        "email": "ann@contoso.com",
        "level": "info",
        "logger": "worker.test",
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("lost one\nline of 2", "warning", "celery.worker")


def test_the_id_of_a_task_is_in_each_of_its_lines(lines: Lines) -> None:
    """It is in lines of the product and of libraries, until the task ends."""
    configure(log_format="json")
    set_context(task_id="t-1")
    structlog.get_logger("worker.test").info("ours")
    logging.getLogger("celery.worker").info("theirs")
    set_context()
    structlog.get_logger("worker.test").info("another's")

    assert [line.get("task_id") for line in lines()] == ["t-1", "t-1", None]


def fail() -> None:
    try:
        dict[str, str]()[JWT]
    except KeyError as error:
        raise ConnectionError(f"cannot reach {URL}") from error


def test_an_exception_stays_on_its_line_and_shows_no_token(lines: Lines) -> None:
    """Neither its text nor the text of its causes shows one. The line contains the traceback."""
    configure(log_format="json")

    try:
        fail()
    except ConnectionError:
        structlog.get_logger("worker.test").exception("ours")
        logging.getLogger("celery.app.trace").exception("theirs")

    logged = lines()
    assert [line["event"] for line in logged] == ["ours", "theirs"]
    for line in logged:
        assert "Traceback" in line["exception"]
        assert "ConnectionError: cannot reach redis://:***@cache.example" in line["exception"]
        assert "hunter2" not in json.dumps(line)
        assert JWT not in json.dumps(line)


def test_arguments_of_a_message_are_masked_with_it(lines: Lines) -> None:
    """Libraries log with %s, and an argument may contain a secret."""
    configure(log_format="json")
    logging.getLogger("kombu.connection").warning("connecting to %s with %r", URL, {"jwt": JWT})
    structlog.get_logger("worker.test").warning("connecting to %s", URL)

    for line in lines():
        assert line["event"].startswith("connecting to redis://:***@cache.example:6379/0")
        assert JWT not in line["event"]


def test_lines_below_the_level_and_lines_of_msal_are_not_logged(lines: Lines) -> None:
    """MSAL logs whole responses, at any level."""
    configure(log_format="json")
    structlog.get_logger("worker.test").debug("detail")
    logging.getLogger("worker.test").debug("detail")
    logging.getLogger("msal.oauth2cli").error("the whole response: %s", JWT)
    logging.getLogger("urllib3.connectionpool").info("Starting new HTTPS connection")
    assert lines() == []

    configure(level="DEBUG", log_format="json")
    structlog.get_logger("worker.test").debug("detail")
    logging.getLogger("msal.oauth2cli").error("the whole response: %s", JWT)

    assert [line["event"] for line in lines()] == ["detail"]


def test_configuring_again_does_not_log_twice(lines: Lines) -> None:
    """Celery configures in the parent and in every child."""
    configure(log_format="json")
    configure(log_format="json")

    structlog.get_logger("worker.test").info("once")
    logging.getLogger("celery.worker").info("once")

    assert len(lines()) == 2


@pytest.mark.parametrize(("log_format", "is_json"), [("console", False), ("json", True), ("auto", True)])
def test_people_get_lines_and_machines_get_json(
    lines: Lines, capsys: pytest.CaptureFixture[str], log_format: Any, is_json: bool
) -> None:
    """`auto` means JSON without a terminal. Secrets are masked in both."""
    configure(level="INFO", log_format=log_format)

    structlog.get_logger("worker.test").info("connected", url=URL)

    line = capsys.readouterr().err
    assert line.startswith("{") is is_json
    assert "connected" in line
    assert "hunter2" not in line
