"""Errors of mail servers: whether they concern the token or the mailbox, or are temporary."""

from datetime import timedelta

import pytest

from worker.mail.refusal import Answer, Refusal

TOKEN = [
    ("NO", "AUTHENTICATE failed."),  # Exchange
    ("NO", "[AUTHENTICATIONFAILED] Authentication failed."),  # Dovecot
    ("NO", "[AUTHENTICATIONFAILED] Invalid credentials (Failure)"),  # Gmail
    ("535", "5.7.3 Authentication unsuccessful [MN2PR13CA0005.namprd13.prod.outlook.com]"),
    ("535", "5.7.8 Authentication failed."),
    ("-ERR", "Authentication failure: unknown user name or bad password."),
    ("-ERR", "[AUTH] Authentication failed."),
    ("NO", "whatever comes next year"),
]
MAILBOX = [
    ("BAD", "LIST command error: BAD [b'User is authenticated but not connected.']"),
    ("535", "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."),
    ("535", "5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy."),
    ("504", "5.7.4 Unrecognized authentication type"),
    ("500", "5.5.2 Line too long"),
    ("NO", "[AUTHORIZATIONFAILED] No such mailbox."),
    ("-ERR", "[SYS/PERM] POP is disabled."),
    ("BAD", "AUTHENTICATE command error: BAD [b'Unsupported mechanism']"),
]
LATER = [
    ("NO", "[UNAVAILABLE] Temporary authentication failure."),
    ("454", "4.7.0 Temporary authentication failure."),
    ("421", "4.3.2 Service not active"),
    ("432", "4.3.2 Concurrent connections limit exceeded."),
    ("-ERR", "[SYS/TEMP] Temporary authentication failure."),
    ("-ERR", "[IN-USE] Mailbox is locked."),
    ("NO", "Server Unavailable. 15"),
    ("BAD", "Request is throttled. Suggested Backoff Time: 299961 milliseconds"),
    ("NO", "[LIMIT] Too many simultaneous connections."),
]


@pytest.mark.parametrize(
    ("status", "text", "refusal"),
    [
        *((*said, Refusal.TOKEN) for said in TOKEN),
        *((*said, Refusal.MAILBOX) for said in MAILBOX),
        *((*said, Refusal.LATER) for said in LATER),
    ],
)
def test_a_refusal_is_understood(status: str, text: str, refusal: Refusal) -> None:
    assert Answer(status, text).refusal is refusal


def test_the_back_off_time_of_a_throttling_server_is_read() -> None:
    answer = Answer("BAD", "Request is throttled. Suggested Backoff Time: 299961 milliseconds")
    assert answer.retry_after == timedelta(milliseconds=299961)
    assert Answer("NO", "Server Unavailable. 15").retry_after is None


def test_a_repeated_token_is_not_quoted_and_a_host_is() -> None:
    token = "dXNlcj1hbm5AY29udG9zby5jb20BYXV0aD1CZWFyZXIgZXlKMGVYQWlPaUpLVjFRaQ=="
    assert Answer("500", f"unrecognized command '{token}'").quoted == "unrecognized command '…'"
    exchange = "5.7.3 Authentication unsuccessful [MN2PR13CA0005.namprd13.prod.outlook.com 2023-09-12T20:59:57.214Z]"
    assert Answer("535", exchange).quoted == exchange
    assert len(Answer("NO", "so it is " * 100).quoted) == 200
