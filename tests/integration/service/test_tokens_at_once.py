"""Many concurrent callers cause one request to Microsoft."""

import multiprocessing
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from threading import Barrier

import pytest

from tests.constants import ANN, BOB, HOUR, MINUTE
from tests.integration import counting
from tests.integration.installation import Installation
from tests.integration.service.readers import read
from tests.waiting import HANG_LIMIT, wait_for
from worker.bootstrap import Services
from worker.devkit.emulator import Hang, oauth_error
from worker.domain.account import account_id
from worker.domain.errors import NeedsUser
from worker.domain.token import AccessToken

_THREADS = 32
_SLOWLY = Hang(0.3, after=True)  # seconds; all callers arrive before the response


def _all_at_once(services: Services) -> list[Future[AccessToken]]:
    start = Barrier(_THREADS)

    def ask() -> AccessToken:
        start.wait(HANG_LIMIT)
        return services.tokens.get(ANN)

    with ThreadPoolExecutor(_THREADS) as pool:
        return [pool.submit(ask) for _ in range(_THREADS)]


def test_threads_of_one_process_share_one_refresh(installation: Installation) -> None:
    """A page with many mail folders opens them all at once."""
    installation.sign_in(ANN, due=True, strict=True)
    installation.emulator.add_fault(_SLOWLY)

    tokens = {future.result().value for future in _all_at_once(installation.services)}

    assert len(tokens) == 1
    assert installation.requests == 1


def test_processes_on_one_machine_share_one_refresh(installation: Installation) -> None:
    """Between processes the lease in Postgres decides. A process without the lease waits for the holder."""
    installation.sign_in(ANN, due=True, strict=True)
    installation.emulator.add_fault(_SLOWLY)

    tokens = _read_by_processes(installation, processes=4, threads=8)

    assert len(tokens) == 32
    assert len(set(tokens)) == 1
    assert installation.requests == 1


def _read_by_processes(installation: Installation, *, processes: int, threads: int) -> list[str]:
    context = multiprocessing.get_context("spawn")
    start, tokens = context.Barrier(processes), list[str]()
    ends = [context.Pipe(duplex=False) for _ in range(processes)]
    readers = [
        context.Process(target=read, args=(installation.plain_settings(), installation.clock(), threads, start, sender))
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


def test_consumers_and_the_schedule_share_one_refresh(installation: Installation) -> None:
    """The sweep and a reader reach the same account at once, and one of them sends the request."""
    installation.sign_in(ANN, due=True, strict=True)
    sweeper = installation.another_process()

    with (
        ThreadPoolExecutor(1) as pool,
        installation.in_flight(sweeper.refresher.refresh_due) as sweep,
        counting.statements() as statements,
    ):
        reading = pool.submit(installation.services.tokens.get, ANN)
        wait_for(lambda: len(statements) >= 2, about="the reader to find the account leased")

    assert sweep.result() == {"leased": 1, "refreshed": 1}
    assert reading.result().version == 2
    assert installation.requests == 1


def test_a_refusal_is_shared_too(installation: Installation) -> None:
    """Microsoft's refusal applies to all callers. A request of each would be the loop that Microsoft punishes."""
    installation.sign_in(ANN, due=True)
    installation.emulator.add_fault(oauth_error("AADSTS50173"))

    for future in _all_at_once(installation.services):
        with pytest.raises(NeedsUser):
            future.result()

    assert installation.requests == 1


def test_a_live_token_is_served_while_another_process_refreshes(installation: Installation) -> None:
    """No caller waits for Microsoft without need."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=57)
    before = installation.cached()
    assert before
    refreshing = installation.another_process()

    with installation.in_flight(lambda: refreshing.tokens.get(ANN)) as refresh:
        assert installation.services.tokens.get(ANN) == before.token

    assert refresh.result().version == 2
    assert installation.services.tokens.get(ANN).version == 2
    assert installation.requests == 1


def test_accounts_do_not_wait_for_each_other(installation: Installation) -> None:
    """A slow refresh delays only the readers of its own mailbox."""
    installation.sign_in(ANN, due=True)
    installation.sign_in(BOB)
    installation.services.redis.flushall()

    with installation.in_flight(lambda: installation.services.tokens.get(ANN)):
        assert installation.services.tokens.get(BOB).email == BOB


def test_an_operator_waits_for_a_refresh_in_flight_and_gets_its_token(installation: Installation) -> None:
    """Two refreshes within a second would only look like a loop to Microsoft."""
    installation.sign_in(ANN, due=True)
    reader = installation.another_process()

    with (
        ThreadPoolExecutor(1) as pool,
        installation.in_flight(lambda: reader.tokens.get(ANN)) as reading,
        counting.statements() as statements,
    ):
        refresh = pool.submit(installation.services.on_demand.refresh_now, account_id(ANN))
        wait_for(lambda: len(statements) >= 3, about="the operator to find the account leased")

    assert refresh.result() == reading.result()
    assert installation.requests == 1


def test_the_higher_min_ttl_of_a_joining_reader_is_met(installation: Installation) -> None:
    """A caller that joins a refresh with a lower requirement must still get a token that meets its own."""
    installation.sign_in(ANN)
    installation.clock.advance(minutes=20)
    installation.services.redis.flushall()

    with ThreadPoolExecutor(2) as pool, closing(installation.lock_accounts()):
        modest = pool.submit(installation.services.tokens.get, ANN)
        wait_for(lambda: installation.blocked_statements() >= 1, about="the first reader to wait for the table")
        looks = _looks_at_the_cache(installation)
        demanding = pool.submit(installation.services.tokens.get, ANN, min_ttl=45 * MINUTE)
        wait_for(lambda: _looks_at_the_cache(installation) > looks, about="the second reader")
        with suppress(AssertionError):  # unless the second reader has joined the first, which only its result shows
            wait_for(
                lambda: installation.blocked_statements() >= 2, about="the second reader at the table", seconds=0.5
            )

    assert modest.result().ttl(installation.clock()) >= 40 * MINUTE
    assert demanding.result().ttl(installation.clock()) == HOUR


def _looks_at_the_cache(installation: Installation) -> int:
    return counting.so_far(installation.services.redis)["getrange"]
