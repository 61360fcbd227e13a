"""The headers and the body of a response."""

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.domain.http import HttpResponse

DAY = timedelta(days=1)
SENT = "Thu, 01 Jan 2026 00:00:00 GMT"


def retry_after(value: str, date: str = SENT) -> timedelta | None:
    return HttpResponse(503, {"retry-after": value, "date": date}, b"").retry_after


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", timedelta(seconds=7)),
        (" 0 ", timedelta(0)),
        ("99999999", DAY),
        ("9" * 5000, DAY),
        ("Thu, 01 Jan 2026 00:01:00 GMT", timedelta(minutes=1)),
        ("Wed, 31 Dec 2025 23:59:00 GMT", timedelta(0)),
        ("Thu, 01 Jan 2037 00:00:00 GMT", DAY),
        ("-7", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_a_duration_of_up_to_one_day(value: str, expected: timedelta | None) -> None:
    """Microsoft sends seconds; a proxy may send a date, which counts from its own clock."""
    assert retry_after(value) == expected


@given(value=st.text(max_size=40), date=st.text(max_size=40))
@example(value="9" * 5000, date=SENT)
@example(value="Thu, 01 Jan 99999999999999999999 00:00:00 GMT", date=SENT)
@example(value=SENT, date="Thu, 01 Jan 99999999999999999999 00:00:00 GMT")
@example(value=SENT, date="Thu, 01 Jan 2026 00:00:00 +99999999999999999999")
def test_no_header_raises(value: str, date: str) -> None:
    """An exception would lose the response, and with it perhaps the reason for a refusal."""
    found = retry_after(value, date)

    assert found is None or timedelta(0) <= found <= DAY


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000])
def test_a_body_that_is_no_json_object_counts_as_none(body: bytes) -> None:
    assert HttpResponse(200, {}, body).json_object() is None


def test_the_body_is_read_as_json() -> None:
    assert HttpResponse(200, {}, b'{"error": "invalid_grant"}').json_object() == {"error": "invalid_grant"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ms-request-id": "a", "client-request-id": "b"}, "a"),
        ({"client-request-id": "b"}, "b"),
        ({"date": SENT}, None),
    ],
)
def test_the_correlation_id_is_microsofts_or_else_the_workers(headers: dict[str, str], expected: str | None) -> None:
    assert HttpResponse(200, headers, b"").correlation_id == expected
