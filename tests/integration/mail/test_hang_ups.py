"""The server closes a session in asyncio: every wait ends at once, and no task is left running."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from aioimaplib import Abort, AioImapException

from tests.integration.mail.script import Scripted, serving_script
from tests.integration.mail.sources import LOCAL, Awaited, HeldSource
from tests.integration.mail.test_scripts import ANN, BEGIN, CAPABILITY, PROMPT
from worker.mail import imapclient
from worker.mail.aio import AioImapSession, open_imap

LOGGED_IN = [
    *BEGIN["imap"],
    PROMPT["imap"],
    "C*",
    "S: {tag} OK AUTHENTICATE completed.",
    *CAPABILITY,
    "C: LIST",
    "S: {tag} OK LIST completed.",
]
SELECTED = [*LOGGED_IN, "C: SELECT", "S+: * 3 EXISTS|{tag} OK [READ-WRITE] SELECT completed."]
IDLING = [*SELECTED, "C: IDLE", "S: + IDLE accepted, awaiting DONE command."]
EXPIRED = "S: * BYE Session invalidated - AccessTokenExpired"
Use = Callable[[AioImapSession], Awaitable[Any]]
Run = Callable[[list[str], Use], float]


@pytest.fixture(name="run")
def _run(script_tls: ssl.SSLContext, script_trust: ssl.SSLContext) -> Run:
    """Uses a session of a server that follows the script. Returns the seconds that it took, the end included."""

    def run(script: list[str], use: Use) -> float:
        async def session() -> None:
            async with open_imap(Awaited(source), ANN, ssl_context=script_trust, mail_hosts=LOCAL) as imap:
                await use(imap)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with serving_script(Scripted([script]), script_tls, "imap") as servers:
            source = HeldSource(servers, lifetime=timedelta(hours=1))
            begun = time.monotonic()
            asyncio.run(session())
            return time.monotonic() - begun

    return run


@pytest.mark.parametrize("end", [["CLOSE"], ["RST"], [EXPIRED, "CLOSE"], [EXPIRED, "SILENT"]])
def test_a_command_ends_with_the_connection(run: Run, end: list[str]) -> None:
    async def use(imap: AioImapSession) -> None:
        with pytest.raises(Abort) as caught:
            await imap.noop()
        assert ("AccessTokenExpired" in str(caught.value)) == (EXPIRED in end)
        with pytest.raises(Abort):
            await imap.select("INBOX")

    assert run([*LOGGED_IN, "C: NOOP", *end], use) < 2


@pytest.mark.parametrize("end", [["CLOSE"], ["RST"], [EXPIRED, "CLOSE"], [EXPIRED, "SILENT"]])
def test_idle_ends_with_the_connection(run: Run, end: list[str]) -> None:
    """Lines that were pushed before are read first. Then every wait raises."""

    async def use(imap: AioImapSession) -> None:
        await imap.select("INBOX")
        idle = await imap.idle_start()
        assert await imap.wait_server_push() == [b"4 EXISTS"]
        for _ in range(2):
            with pytest.raises(Abort, match="has ended"):
                await read_on(imap)
        assert (await asyncio.wait_for(idle, 2)).result == "BYE"

    assert run([*IDLING, "S: * 4 EXISTS", "SLEEP 0.2", *end], use) < 3


async def read_on(imap: AioImapSession) -> None:
    while True:
        await imap.wait_server_push()


def test_commands_that_queue_behind_another_end_too(run: Run) -> None:
    async def use(imap: AioImapSession) -> None:
        waiting = [imap.select("INBOX"), imap.noop(), imap.list('""', "*")]
        raised = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert all(isinstance(each, AioImapException) for each in raised), raised

    assert run([*LOGGED_IN, "C*", "CLOSE"], use) < 3


def test_a_session_that_ended_while_idle_raises_at_the_next_command(run: Run) -> None:
    async def use(imap: AioImapSession) -> None:
        await asyncio.sleep(0.2)
        with pytest.raises(Abort):
            await imap.noop()

    assert run([*LOGGED_IN, "CLOSE"], use) < 2


@pytest.mark.parametrize("said", ["S: A1 OK unasked", "S: * FOO {99999999999}", "RAW * " + "x" * 1_100_000])
def test_a_server_that_sends_nonsense_is_disconnected(run: Run, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio would log an exception of the protocol, with the server's words in it."""

    async def use(imap: AioImapSession) -> None:
        with pytest.raises(Abort):
            await imap.noop()

    assert run([*LOGGED_IN, "C: NOOP", said, "SILENT"], use) < 3
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_many_lines_at_once_are_read(run: Run) -> None:
    """aioimaplib needs a level of recursion per line, and Python allows a thousand."""
    lines = "|".join(f"* SEARCH {number}" for number in range(5_000))

    async def use(imap: AioImapSession) -> None:
        await imap.select("INBOX")
        assert len((await imap.search("ALL")).lines) == 5_001

    logout = ["C: LOGOUT", "S+: * BYE signing off|{tag} OK LOGOUT"]
    assert run([*SELECTED, "C: SEARCH", "S+: " + lines + "|{tag} OK SEARCH completed.", *logout], use) < 5


def test_a_token_that_the_server_repeats_later_is_in_no_log_of_imapclient(
    script_tls: ssl.SSLContext, script_trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    login = [step for step in LOGGED_IN if step not in CAPABILITY]
    script = [*login[:1], *CAPABILITY, *login[1:], "C: NOOP", "S+: * OK it was {resp}|{tag} OK NOOP", "CLOSE"]
    with serving_script(Scripted([script]), script_tls, "imap") as servers:
        source = HeldSource(servers)
        with imapclient.open_imap(source, ANN, ssl_context=script_trust, mail_hosts=LOCAL) as imap:
            imap.noop()
    assert "it was …" in caplog.text
    assert "dXNlcj1hbm5AY29udG9zby5jb20" not in caplog.text


def test_a_token_that_the_server_repeats_is_in_no_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def use(imap: AioImapSession) -> None:
        await imap.noop()

    script = [*LOGGED_IN, "C: NOOP", "S+: * OK it was {resp}|{tag} OK NOOP", "C: LOGOUT", "S+: * BYE|{tag} OK"]
    run(script, use)
    assert "it was …" in caplog.text
    assert "dXNlcj1hbm5AY29udG9zby5jb20" not in caplog.text, "user=ann@contoso.com, in base64"
