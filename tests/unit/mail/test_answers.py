"""The verdicts on the errors of mail servers."""

from datetime import timedelta

import pytest

from worker.mail.answers import RULES, Answer, MailProtocol, Phase, Verdict

IMAP, POP, SMTP, GRAPH = MailProtocol

REJECTED = [
    (IMAP, "NO", "AUTHENTICATE failed."),  # Exchange
    (IMAP, "NO", "[AUTHENTICATIONFAILED] Authentication failed."),  # Dovecot
    (IMAP, "NO", "[AUTHENTICATIONFAILED] Invalid credentials, try again (Failure)"),  # Gmail
    (IMAP, "NO", "Server authentication failed"),
    (IMAP, "NO", "whatever comes next year"),
    (SMTP, "535", "5.7.3 Authentication unsuccessful [MN2PR13CA0005.namprd13.prod.outlook.com]"),
    (SMTP, "535", "5.7.8 Authentication failed."),
    (SMTP, "501", "5.5.127 Invalid XOAUTH2 auth data - Token will expire soon"),
    (POP, "-ERR", "Authentication failure: unknown user name or bad password."),
    (POP, "-ERR", "Logon failure: unknown user name or bad password."),
    (POP, "-ERR", "[AUTH] Authentication failed."),
    (GRAPH, "401", "InvalidAuthenticationToken Lifetime validation failed, the token is expired."),
]
MAILBOX = [
    (SMTP, "535", "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."),
    (SMTP, "535", "5.7.139 Authentication unsuccessful, user is locked by your organization's security policy."),
    (SMTP, "501", "5.5.124 Invalid XOAUTH2 auth data - user and token mismatch"),
    (SMTP, "504", "5.7.4 Unrecognized authentication type"),
    (SMTP, "500", "5.3.3 Unrecognized command"),
    (SMTP, "550", "5.7.60 no rights to send as this sender"),
    (IMAP, "NO", "[AUTHORIZATIONFAILED] No such mailbox."),
    (IMAP, "NO", "IMAP access is disabled for this mailbox."),
    (IMAP, "NO", "[ALERT] Please log in via your web browser"),
    (IMAP, "BAD", "Unsupported authentication mechanism"),
    (IMAP, "NO", "AUTHENTICATE not implemented"),
    (IMAP, "NO", "Protocol not allowed for this user"),
    (POP, "-ERR", "[SYS/PERM] POP is disabled."),
    (POP, "-ERR", "Authentication method not supported"),
    (GRAPH, "403", "ErrorAccessDenied Access is denied."),
    (GRAPH, "404", "MailboxNotEnabledForRESTAPI The mailbox is either inactive, soft-deleted, or on-premise."),
]
NOT_CONNECTED = [
    (IMAP, "BAD", "User is authenticated but not connected."),
    (IMAP, "NO", "User is authenticated but not connected."),
    (IMAP, "BYE", "User is authenticated but not connected."),
    (POP, "-ERR", "User is authenticated but not connected."),
]
UNAVAILABLE = [
    (IMAP, "NO", "[UNAVAILABLE] Temporary authentication failure."),
    (IMAP, "NO", "Server Unavailable. 15"),
    (IMAP, "NO", "System error (Failure)"),
    (IMAP, "NO", "[OVERQUOTA] no room"),
    (IMAP, "NO", "[LIMIT] Too many simultaneous connections."),
    (IMAP, "NO", "Server Busy. Please retry later."),
    (IMAP, "BAD", "Request is throttled. Suggested Backoff Time: 299961 milliseconds"),
    (IMAP, "BAD", "Command received in Invalid state."),
    (IMAP, "BAD", "Command Argument Error. 11"),
    (IMAP, "BAD", "whatever comes next year"),
    (IMAP, "BYE", "Session invalidated - AccessTokenExpired"),
    (POP, "-ERR", "[SYS/TEMP] Temporary authentication failure."),
    (POP, "-ERR", "[IN-USE] Mailbox is locked."),
    (POP, "-ERR", "maildrop already locked"),
    (POP, "-ERR", "Command is not valid in this state."),
    (IMAP, "NO", "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)"),
    (IMAP, "NO", "Internal server error"),
    (SMTP, "535", "5.7.8 Error: authentication failed: Connection lost to authentication server"),
    (POP, "-ERR", "Protocol error. Connection is closed. 10"),
    (SMTP, "454", "4.7.0 Temporary authentication failure."),
    (SMTP, "451", "4.7.0 Temporary server error. Please try again later. PRX4 [AM5PR0701CA0008.eurprd07]"),
    (SMTP, "421", "4.3.2 Service not active"),
    (SMTP, "432", "4.3.2 Concurrent connections limit exceeded."),
    (SMTP, "500", "5.5.2 Line too long"),
    (SMTP, "503", "5.5.1 Bad sequence of commands"),
    (SMTP, "-1", "malformed"),
    (IMAP, "PREAUTH", "what?"),
    (GRAPH, "429", "ApplicationThrottled Application is over its MailboxConcurrency limit."),
    (GRAPH, "503", ""),
]


@pytest.mark.parametrize(
    ("protocol", "status", "words", "verdict"),
    [
        *((*said, Verdict.REJECTED) for said in REJECTED),
        *((*said, Verdict.MAILBOX) for said in MAILBOX),
        *((*said, Verdict.NOT_CONNECTED) for said in NOT_CONNECTED),
        *((*said, Verdict.UNAVAILABLE) for said in UNAVAILABLE),
    ],
)
def test_an_answer_is_understood(protocol: MailProtocol, status: str, words: str, verdict: Verdict) -> None:
    assert Answer(protocol=protocol, status=status, words=words).verdict is verdict


@pytest.mark.parametrize(("protocol", "status", "words"), REJECTED)
def test_a_token_that_was_not_judged_is_not_rejected(protocol: MailProtocol, status: str, words: str) -> None:
    """Before it has got the token, the login is impossible. After it has accepted it, the server is at fault."""
    before = Answer(protocol=protocol, status=status, words=words, phase=Phase.UNSENT)
    after = Answer(protocol=protocol, status=status, words=words, phase=Phase.ACCEPTED)
    assert (before.verdict, after.verdict) == (Verdict.MAILBOX, Verdict.UNAVAILABLE)


def test_every_rule_names_its_source() -> None:
    assert all(rule.source and rule.protocols for rule in RULES)


def test_the_back_off_time_of_a_throttling_server_is_read() -> None:
    words = "Request is throttled. Suggested Backoff Time: 299961 milliseconds"
    assert Answer(protocol=IMAP, status="BAD", words=words).retry_after == timedelta(milliseconds=299961)
    assert Answer(protocol=IMAP, status="NO", words="Server Unavailable. 15").retry_after is None
