"""One emulator server for a whole test run, with a new emulator behind it for each test.

Starting and stopping a server takes longer than most tests. The relay can also hold responses back on their way out.
"""

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from tests.waiting import HANG_LIMIT
from worker.devkit.emulator import Emulator


@dataclass(slots=True)
class HeldResponses:
    """Token responses that are held until they are released. Other responses are sent meanwhile."""

    wanted: int
    pending: int = 0
    ready: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def includes_next(self) -> bool:
        """Whether the response to a request that has just arrived is held."""
        self.wanted -= 1
        self.pending += self.wanted >= 0
        return self.wanted >= 0

    async def wait(self) -> None:
        """Return once the test releases the responses. ``ready`` is set when all of them are held."""
        self.pending -= 1
        if self.wanted <= 0 and self.pending == 0:
            self.ready.set()
        await asyncio.to_thread(self.released.wait, HANG_LIMIT)


class EmulatorRelay(Emulator):
    """Forwards each request to the emulator of the running test, and answers nothing itself."""

    target: Emulator
    held: HeldResponses | None = None

    @cached_property
    def app(self) -> Starlette:
        return Starlette(routes=[Mount("/", app=self._forward)])

    def forward_to(self, target: Emulator) -> None:
        target.base_url = self.base_url
        self.target = target
        self.held = None

    def hold(self, responses: int) -> HeldResponses:
        """Hold the responses to the next ``responses`` token requests, whether they grant or refuse."""
        self.held = HeldResponses(responses)
        return self.held

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = self.held if scope["method"] == "POST" and self.held and self.held.includes_next() else None

        async def send_when_released(message: Message) -> None:
            if held and message["type"] == "http.response.start":
                await held.wait()
            await send(message)

        await self.target.app(scope, receive, send_when_released)
