"""A consumer in a process of its own: it reads one account with several threads at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from tests.waiting import HANG_LIMIT
from worker.bootstrap import bootstrap
from worker.domain.token import AccessToken
from worker.settings import Settings


def read(settings: dict[str, str], now: datetime, threads: int, start: Barrier, results: "Connection[str]") -> None:
    """Send the token of Ann's account that each thread got. All processes begin at the same moment."""
    services = bootstrap(Settings.model_validate(settings), utcnow=lambda: now)
    services.database.ping()  # opens the connections before all processes begin
    services.cache.ping()

    def once(_number: int) -> AccessToken:
        return services.tokens.get("ann@contoso.com")

    with ThreadPoolExecutor(threads) as pool:
        start.wait(HANG_LIMIT)
        for token in pool.map(once, range(threads)):
            results.send(token.value)
    services.close()
    results.close()
