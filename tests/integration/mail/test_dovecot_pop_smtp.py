"""Mail is fetched over POP and sent over SMTP, at real servers."""

import asyncio
from contextlib import suppress
from email.message import EmailMessage
from ssl import SSLContext

from tests.integration.mail.conftest import Sink
from tests.integration.mail.office import Office
from tests.integration.mail.sources import Awaited, ServiceSource
from worker.mail import aio, open_imap, open_pop, open_smtp

ANN, BOB, CAT = "ann.pop@contoso.com", "bob@fabrikam.com", "cat@contoso.com"


class Interrupted(Exception):
    pass


def message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ANN, BOB, "Lunch?"
    message.set_content("At noon.")
    return message


def test_deleted_messages_stay_until_the_block_succeeds(
    office: Office, source: ServiceSource, trust: SSLContext
) -> None:
    office.sign_in(ANN)
    with open_imap(source, ANN, ssl_context=trust) as imap:
        imap.append("INBOX", "", "", b"Subject: Lunch?\r\n\r\nAt noon.\r\n")
    with suppress(Interrupted), open_pop(source, ANN, ssl_context=trust) as pop:
        assert b"Subject: Lunch?" in pop.retr(1)[1]
        pop.dele(1)
        raise Interrupted
    with open_pop(source, ANN, ssl_context=trust) as pop:
        assert pop.stat()[0] == 1
        pop.dele(1)
    with open_pop(source, ANN, ssl_context=trust) as pop:
        assert pop.stat()[0] == 0


def test_a_pop_session_may_be_ended_by_hand(office: Office, source: ServiceSource, trust: SSLContext) -> None:
    office.sign_in(ANN)
    with open_pop(source, ANN, ssl_context=trust) as pop:
        assert pop.quit().startswith(b"+OK")


def test_a_message_is_sent(office: Office, source: ServiceSource, trust: SSLContext, sink: Sink) -> None:
    office.sign_in(ANN)
    with open_smtp(source, ANN, ssl_context=trust) as smtp:
        assert smtp.send_message(message()) == {}
    [sent] = sink.messages
    assert (sent["X-MailFrom"], sent["X-RcptTo"], sent["Subject"]) == (ANN, BOB, "Lunch?")


def test_a_message_is_sent_by_asyncio(office: Office, source: ServiceSource, trust: SSLContext, sink: Sink) -> None:
    office.sign_in(ANN)

    async def send() -> None:
        async with aio.open_smtp(Awaited(source), ANN, ssl_context=trust) as smtp:
            await smtp.send_message(message())

    asyncio.run(send())
    assert [sent["Subject"] for sent in sink.messages] == ["Lunch?"]
