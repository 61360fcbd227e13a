"""The bytes of XOAUTH2, as Google and Microsoft publish them."""

import base64

import pytest

from worker.domain.errors import InvalidInput
from worker.domain.token import Secret
from worker.mail.answers import MailProtocol, Verdict
from worker.mail.xoauth2 import Conversation, EndlessChallenge, explain, initial_response


def test_the_response_is_the_one_in_microsofts_documentation() -> None:
    """learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection using OAuth", its base64 example."""
    response = initial_response("test@contoso.onmicrosoft.com", Secret("EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"))
    assert base64.b64encode(response.encode()) == (
        b"dXNlcj10ZXN0QGNvbnRvc28ub25taWNyb3NvZnQuY29tAWF1dGg9QmVhcmVy"
        b"IEV3QkFBbDNCQUFVRkZwVUFvN0ozVmUwYmpMQldaV0NjbFJDM0VvQUEBAQ=="
    )


@pytest.mark.parametrize("user", ["ann\x01auth=Bearer other", "ann\r\nQUIT", "ann\x00"])
def test_a_user_name_cannot_contain_further_fields(user: str) -> None:
    with pytest.raises(InvalidInput):
        initial_response(user, Secret("token"))


def test_the_token_is_sent_once_and_then_an_empty_line() -> None:
    conversation = Conversation(MailProtocol.IMAP, "ann@contoso.com", Secret("token"))
    challenge = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}')
    assert base64.b64decode(conversation.reply_line(b"")) == b"user=ann@contoso.com\x01auth=Bearer token\x01\x01"
    assert conversation.reply_line(challenge) == b""
    assert conversation.answer("NO", "no").words == "no (status 401, scope https://mail.google.com/)"


def test_a_conversation_ends_although_the_server_does_not() -> None:
    conversation = Conversation(MailProtocol.IMAP, "ann@contoso.com", Secret("token"))
    for _ in range(4):
        conversation.reply(b"")
    with pytest.raises(EndlessChallenge):
        conversation.reply(b"")


@pytest.mark.parametrize("challenge", [b"", b"\xff\xfe", b"[1]", b"[" * 100_000, b'"401"', b'{"status": 401}', b"{"])
def test_other_challenges_have_no_explanation(challenge: bytes) -> None:
    assert explain(challenge) == ""


def test_a_line_that_is_no_base64_gets_a_reply() -> None:
    conversation = Conversation(MailProtocol.IMAP, "ann@contoso.com", Secret("token"))
    conversation.reply_line(b"go ahead!")
    assert conversation.reply_line(b"=") == b""
    assert conversation.reply_line(None) == b""
    assert conversation.answer("NO", "").words == "no reason given"


def test_only_a_token_that_was_sent_and_not_yet_taken_is_rejected() -> None:
    conversation = Conversation(MailProtocol.IMAP, "ann@contoso.com", Secret("token"))
    verdicts = [conversation.answer("NO", "AUTHENTICATE failed.").verdict]
    conversation.reply(b"")
    verdicts.append(conversation.answer("NO", "AUTHENTICATE failed.").verdict)
    conversation.accepted()
    verdicts.append(conversation.answer("NO", "AUTHENTICATE failed.").verdict)
    assert verdicts == [Verdict.MAILBOX, Verdict.REJECTED, Verdict.UNAVAILABLE]


def test_an_error_challenge_that_repeats_the_token_is_masked() -> None:
    token = "eyJ0eXAi.eyJhdWQi.c2ln"
    conversation = Conversation(MailProtocol.IMAP, "ann@contoso.com", Secret(token))
    conversation.reply(b"")
    conversation.reply(f'{{"status": "400", "scope": "{token}"}}'.encode())
    assert conversation.answer("NO", f"not {token}").words == "not … (status 400, scope …)"


def test_a_conversation_shows_no_token() -> None:
    assert "hunter2" not in repr(Conversation(MailProtocol.IMAP, "ann@contoso.com", Secret("hunter2")))
