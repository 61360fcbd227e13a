"""However many ask at once, Microsoft is asked once."""

import multiprocessing
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from threading import Barrier

import pytest

from tests.e2e.installation import wait_for
from tests.integration.service import counting
from tests.integration.service.house import ANN, BOB, HOUR, MINUTE, House
from tests.integration.service.readers import read
from worker.bootstrap import Services
from worker.devkit.emulator import Hang, oauth_error
from worker.domain.account import account_id
from worker.domain.errors import NeedsUser
from worker.domain.token import AccessToken

_THREADS = 32
_SLOWLY = Hang(0.3, after=True)  # seconds; everybody arrives while the answer is on its way


def _all_at_once(services: Services) -> list[Future[AccessToken]]:
    start = Barrier(_THREADS)

    def ask() -> AccessToken:
        start.wait(30)
        return services.tokens.get(ANN)

    with ThreadPoolExecutor(_THREADS) as pool:
        return [pool.submit(ask) for _ in range(_THREADS)]


def test_threads_of_one_process_share_one_refresh(house: House) -> None:
    """A page with many mail folders opens them all at once."""
    house.enrol(ANN, strict=True)
    house.emulator.add_fault(_SLOWLY)

    tokens = {future.result().value for future in _all_at_once(house.services)}

    assert len(tokens) == 1
    assert house.asked() == 1


def test_processes_on_one_machine_share_one_refresh(house: House) -> None:
    """Between processes the lease in Postgres decides; who does not hold it waits for who does."""
    house.enrol(ANN, strict=True)
    house.emulator.add_fault(_SLOWLY)

    tokens = _read_by_processes(house, processes=4, threads=8)

    assert len(tokens) == 32
    assert len(set(tokens)) == 1
    assert house.asked() == 1


def _read_by_processes(house: House, *, processes: int, threads: int) -> list[str]:
    context = multiprocessing.get_context("spawn")
    start, tokens = context.Barrier(processes), list[str]()
    ends = [context.Pipe(duplex=False) for _ in range(processes)]
    readers = [
        context.Process(target=read, args=(house.environment(), house.clock(), threads, start, sender))
        for _, sender in ends
    ]
    for reader, (_, sender) in zip(readers, ends, strict=True):
        reader.start()
        sender.close()
    for reader, (receiver, _) in zip(readers, ends, strict=True):
        with suppress(EOFError):
            tokens += [receiver.recv() for _ in range(threads)]
        receiver.close()
        reader.join()
        reader.close()
    return tokens


def test_consumers_and_the_schedule_share_one_refresh(house: House) -> None:
    """The sweep meets the reader at the very account: one of them asks."""
    house.enrol(ANN, strict=True)
    sweeper = house.another()

    with (
        ThreadPoolExecutor(1) as pool,
        house.in_flight(sweeper.refresher.refresh_due) as sweep,
        house.counted() as statements,
    ):
        reading = pool.submit(house.services.tokens.get, ANN)
        wait_for(lambda: len(statements) >= 2, about="the reader to find the account leased")

    assert sweep.result() == {"claimed": 1, "refreshed": 1}
    assert reading.result().version == 2
    assert house.asked() == 1


def test_a_refusal_is_shared_too(house: House) -> None:
    """It is Microsoft's answer to all of them; each asking for itself would be the loop that it punishes."""
    house.enrol(ANN)
    house.emulator.add_fault(oauth_error("AADSTS50173"))

    for future in _all_at_once(house.services):
        with pytest.raises(NeedsUser):
            future.result()

    assert house.asked() == 1


def test_who_comes_while_somebody_else_refreshes_takes_the_token_that_lives(house: House) -> None:
    """Nobody waits for Microsoft who need not."""
    house.sign_in(ANN)
    house.clock.advance(minutes=57)
    before = house.cached()
    assert before
    refreshing = house.another()

    with house.in_flight(lambda: refreshing.tokens.get(ANN)) as refresh:
        assert house.services.tokens.get(ANN) == before.token

    assert refresh.result().version == 2
    assert house.services.tokens.get(ANN).version == 2
    assert house.asked() == 1


def test_accounts_do_not_wait_for_each_other(house: House) -> None:
    """A mailbox that is slow to refresh holds up its own readers."""
    house.enrol(ANN)
    house.sign_in(BOB)
    house.services.redis.flushall()

    with house.in_flight(lambda: house.services.tokens.get(ANN)):
        assert house.services.tokens.get(BOB).email == BOB


def test_an_operator_waits_for_who_is_refreshing_and_takes_what_it_got(house: House) -> None:
    """Two refreshes within a second would only tell Microsoft that something loops here."""
    house.enrol(ANN)
    reader = house.another()

    with (
        ThreadPoolExecutor(1) as pool,
        house.in_flight(lambda: reader.tokens.get(ANN)) as reading,
        house.counted() as statements,
    ):
        refresh = pool.submit(house.services.on_demand.refresh, account_id(ANN))
        wait_for(lambda: len(statements) >= 3, about="the operator to find the account leased")

    assert refresh.result() == reading.result()
    assert house.asked() == 1


def test_a_wish_is_not_lost_in_company(house: House) -> None:
    """Whoever joins somebody who wished for less must still get what it wished for."""
    house.sign_in(ANN)
    house.clock.advance(minutes=20)
    house.services.redis.flushall()

    with ThreadPoolExecutor(2) as pool, closing(house.locked_table()):
        modest = pool.submit(house.services.tokens.get, ANN)
        wait_for(lambda: house.waiting() >= 1, about="the first reader to come to the table")
        looks = _looks_at_the_cache(house)
        demanding = pool.submit(house.services.tokens.get, ANN, min_ttl=45 * MINUTE)
        wait_for(lambda: _looks_at_the_cache(house) > looks, about="the second reader")
        with suppress(AssertionError):  # unless it has joined the first now, which only its result tells
            wait_for(lambda: house.waiting() >= 2, about="the second reader at the table", seconds=0.5)

    assert modest.result().ttl(house.clock()) >= 40 * MINUTE
    assert demanding.result().ttl(house.clock()) == HOUR


def _looks_at_the_cache(house: House) -> int:
    return counting.so_far(house.services.redis)["get"]
