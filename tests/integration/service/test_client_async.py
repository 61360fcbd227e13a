"""The client for asyncio: a read from the local cache needs no thread, and no other read blocks the loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from tests.constants import ANN, BOB, CAT, HOUR
from tests.integration.installation import Installation
from tests.waiting import HANG_LIMIT, wait_for
from worker.client import AccessToken, AsyncTokenClient, ClientClosed, NeedsUser, TokenRefused, UnknownAccount
from worker.devkit.emulator import oauth_error


def _with_client(installation: Installation, use: Callable[[AsyncTokenClient], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with AsyncTokenClient(installation.settings, utcnow=installation.clock) as client:
            await use(client)

    asyncio.run(main())


def test_a_hundred_tasks_share_one_refresh_and_the_loop_goes_on(installation: Installation) -> None:
    """A slow response of Microsoft must not block the loop."""
    installation.sign_in(ANN, due=True, strict=True)
    held = installation.relay.hold(1)

    async def use(client: AsyncTokenClient) -> None:
        reading = asyncio.gather(*(client.get(ANN) for _ in range(100)))
        assert await asyncio.to_thread(held.ready.wait, HANG_LIMIT)
        for _ in range(11):
            await asyncio.sleep(0.01)
        assert not reading.done()
        held.released.set()
        assert len(set(await reading)) == 1

    _with_client(installation, use)
    assert installation.requests == 1


def test_a_token_in_the_local_cache_needs_no_thread(installation: Installation) -> None:
    """Neither for a token nor for a cached failure."""
    installation.sign_in(ANN)
    installation.sign_in(BOB, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"), BOB)

    async def use(client: AsyncTokenClient) -> None:
        token = await client.get(ANN)
        with pytest.raises(NeedsUser):
            await client.get(BOB)
        coroutine = client.get(ANN)
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)  # it would yield if it had to wait
        assert done.value.value == token
        with pytest.raises(NeedsUser):
            client.get(BOB).send(None)

    _with_client(installation, use)


def test_every_method_does_the_same_as_in_the_synchronous_client(installation: Installation) -> None:
    """They are the same methods, run in a thread."""
    grant = installation.grant(ANN, lifetime=HOUR)
    installation.sign_in(BOB)

    async def use(client: AsyncTokenClient) -> None:
        await client.save(ANN, refresh_token=grant.refresh_token.reveal())
        assert (await client.load(ANN)).servers.imap_host == "outlook.office365.com"
        many = await client.get_many([ANN, BOB, CAT])
        assert [type(each) for each in many.values()] == [AccessToken, AccessToken, UnknownAccount]
        token = await client.report_rejected(BOB, 1)
        assert token.version == 2
        with pytest.raises(TokenRefused):
            await client.report_rejected(BOB, 2)
        await client.disconnect(ANN)
        installation.emulator.add_fault(oauth_error("AADSTS50173"), BOB)
        installation.clock.advance(hours=1)
        with pytest.raises(NeedsUser):
            await client.get(BOB)
        async with aclosing(client.watch(every=0.01)) as events:
            async for event in events:
                assert event.email == BOB
                break

    _with_client(installation, use)


def test_closing_leaves_no_thread_and_later_calls_raise(installation: Installation) -> None:
    """A web application that reloads must not accumulate threads."""
    installation.sign_in(ANN)

    async def main() -> None:
        client = AsyncTokenClient(installation.settings, utcnow=installation.clock)
        await client.get(ANN)
        await client.close()
        await client.close()
        for call in (client.get(ANN), client.get_many([ANN]), client.disconnect(ANN)):
            with pytest.raises(ClientClosed):
                await call

    asyncio.run(main())
    wait_for(lambda: not _threads(), about="its threads to end")


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("token-client")]


def test_a_listener_ends_with_its_client(installation: Installation) -> None:
    """It ends at once, even while it sleeps. Listeners of another loop go on."""
    client = AsyncTokenClient(installation.settings, utcnow=installation.clock)

    async def listen() -> list[str]:
        return [event.email async for event in client.watch(every=3600)]

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listen(), 0.5)

    async def close() -> None:
        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.5)
        assert not listening.done()
        await client.close()
        assert await asyncio.wait_for(listening, HANG_LIMIT) == []

    asyncio.run(give_up())
    asyncio.run(close())
