"""One server for a whole test run, with a new emulator behind it for each test: a server's stop takes longer than most
tests. It can keep an answer back on its way out."""

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from worker.devkit.emulator import Emulator

_PATIENCE = 30  # seconds


@dataclass(slots=True)
class Held:
    """Answers that do not leave before they are released, while others do."""

    wanted: int
    on_their_way: int = 0
    ready: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def takes(self) -> bool:
        """Whether the answer to a request that has just come is one of them."""
        self.wanted -= 1
        self.on_their_way += self.wanted >= 0
        return self.wanted >= 0

    async def wait(self) -> None:
        self.on_their_way -= 1
        if self.wanted <= 0 and self.on_their_way == 0:
            self.ready.set()
        await asyncio.to_thread(self.released.wait, _PATIENCE)


class Stage(Emulator):
    """Answers nothing itself: whoever is on stage does."""

    performer: Emulator
    held: Held | None = None

    @cached_property
    def app(self) -> Starlette:
        return Starlette(routes=[Mount("/", app=self._forward)])

    def enter(self, performer: Emulator) -> None:
        performer.base_url = self.base_url
        self.performer = performer
        self.held = None

    def hold(self, answers: int) -> Held:
        """Keep back the answers to the next so many requests for tokens, whatever they are."""
        self.held = Held(answers)
        return self.held

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = self.held if scope["method"] == "POST" and self.held and self.held.takes() else None

        async def say(message: Message) -> None:
            if held and message["type"] == "http.response.start":
                await held.wait()
            await send(message)

        await self.performer.app(scope, receive, say)
