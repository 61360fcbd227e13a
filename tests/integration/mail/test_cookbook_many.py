"""The cookbook's watcher for many mailboxes, run against scripted servers."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.mail.exchange import Exchange, serving
from tests.integration.mail.office import Office
from tests.integration.mail.recipes import module
from tests.integration.mail.sources import LOCAL, Awaited, HeldSource, ServiceSource
from worker.domain.account import MailServers
from worker.mail import MailboxRefused, MailUnavailable, TokenSource, open_imap

NOT_CONNECTED = "BAD User is authenticated but not connected."
MANY = [f"user{number}@contoso.com" for number in range(100)]


@pytest.fixture(name="recipe")
def _recipe() -> ModuleType:
    recipe = module("watchmany")
    recipe.__dict__.update(FIRST_PAUSE=0.1, LAST_PAUSE=0.2)
    return recipe


class Watching:
    """The looks and the reports of a watcher."""

    def __init__(self, recipe: ModuleType, source: TokenSource, trust: ssl.SSLContext) -> None:
        self.looks: Counter[str] = Counter()
        self.looked = asyncio.Condition()
        self.reports: list[tuple[str, Exception]] = []
        self.watcher = recipe.Watcher(
            Awaited(source), self.look, self.report, ssl_context=trust, mail_hosts=LOCAL, timeout=30
        )

    async def look(self, email: str, imap: Any) -> None:
        assert (await imap.search("ALL")).result == "OK"
        async with self.looked:
            self.looks[email] += 1
            self.looked.notify_all()

    async def report(self, email: str, error: Exception) -> None:
        self.reports.append((email, error))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self.looked:
            await self.looked.wait_for(done)

    @asynccontextmanager
    async def at_work(self, emails: list[str]) -> AsyncIterator[None]:
        watching = asyncio.create_task(self.watcher.watch_all(emails))
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_many_mailboxes_are_watched_through_failed_logins(
    recipe: ModuleType, script_tls: ssl.SSLContext, script_trust: ssl.SSLContext
) -> None:
    """In one public report 28 % of the logins are not connected. Each mailbox is looked at twice nevertheless."""
    exchange = Exchange(verdicts=[*[NOT_CONNECTED] * 28, ""])

    async def watch(source: HeldSource) -> Watching:
        watching = Watching(recipe, source, script_trust)
        async with watching.at_work(MANY):
            await watching.until(lambda: all(watching.looks[email] == 2 for email in MANY))
        return watching

    with serving(exchange, script_tls) as servers:
        source = HeldSource(servers)
        watching = asyncio.run(watch(source))
    assert (watching.reports, source.reported) == ([], [])


def test_a_mailbox_that_is_disconnected_is_watched_again(
    recipe: ModuleType, office: Office, source: ServiceSource, trust: ssl.SSLContext
) -> None:
    mailbox = f"ann.{uuid4().hex}@contoso.com"
    office.sign_in(mailbox)

    async def watch() -> Watching:
        watching = Watching(recipe, source, trust)
        async with watching.at_work([mailbox]):
            await watching.until(lambda: watching.looks[mailbox] == 1)
            await asyncio.to_thread(office.dovecot.kick, mailbox)
            await asyncio.to_thread(deliver)
            await watching.until(lambda: watching.looks[mailbox] >= 2)
        return watching

    def deliver() -> None:
        with open_imap(source, mailbox, ssl_context=trust, mail_hosts=LOCAL) as imap:
            imap.append("INBOX", "", "", b"Subject: Lunch?\r\n\r\n")

    assert asyncio.run(watch()).reports == []


def test_a_failure_that_needs_a_person_is_reported_and_ends_the_watch(
    recipe: ModuleType, script_tls: ssl.SSLContext, script_trust: ssl.SSLContext
) -> None:
    async def watch(source: HeldSource) -> Watching:
        watching = Watching(recipe, source, script_trust)
        await asyncio.wait_for(watching.watcher.watch_all(["ann@contoso.com"]), 30)
        return watching

    with serving(Exchange(verdicts=["NO [AUTHORIZATIONFAILED] no rights"]), script_tls) as servers:
        watching = asyncio.run(watch(HeldSource(servers)))
    [(email, error)] = watching.reports
    assert (email, type(error), watching.looks) == ("ann@contoso.com", MailboxRefused, Counter())


def test_a_lasting_failure_is_reported_once(recipe: ModuleType, script_trust: ssl.SSLContext) -> None:
    recipe.__dict__["ALERT"] = timedelta(seconds=0.3)
    source = HeldSource(MailServers(imap_host="localhost", imap_port=1))

    async def watch() -> Watching:
        watching = Watching(recipe, source, script_trust)
        async with watching.at_work(["ann@contoso.com"]):
            await asyncio.sleep(2)
        return watching

    [(_, error)] = asyncio.run(watch()).reports
    assert isinstance(error, MailUnavailable)
    assert len(source.wanted) > 5, "it goes on"
