"""The names of the stores, which may lead elsewhere for a while."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fail_over import hot_standby, redis_replica
from tests.moving_proxy import MovingProxy
from worker.devkit.stack import Stack, ValkeyServer

NOWHERE = "tcp://127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class StoreNames:
    """The proxies through which all processes of the fleet reach the stores, and other servers to lead them to."""

    postgres: MovingProxy
    redis: MovingProxy
    hot_standby: str
    replica: str
    empty_redis: str

    @contextmanager
    def leads(self, name: MovingProxy, elsewhere: str) -> Iterator[None]:
        """End all connections and let new ones lead elsewhere. Those stay open when the name is right again."""
        right = name.target
        name.point_to(elsewhere)
        name.cut()
        try:
            yield
        finally:
            name.target = right


@contextmanager
def store_names(stack: Stack, directory: Path) -> Iterator[StoreNames]:
    directory.mkdir(mode=0o711)
    with ExitStack() as undo:
        standby = undo.enter_context(
            hot_standby(stack.postgres, stack.directory / "postgres", directory / "hot-standby")
        )
        replica = undo.enter_context(redis_replica(stack.redis_url, directory / "replica"))
        empty = ValkeyServer(directory / "empty", durable=False)
        (directory / "empty").mkdir()
        (directory / "empty" / "password").write_text((directory / "replica" / "password").read_text())
        undo.callback(empty.stop)
        empty.start()
        postgres = undo.enter_context(MovingProxy(stack.database_url))
        redis = undo.enter_context(MovingProxy(stack.redis_url))
        yield StoreNames(postgres, redis, standby, replica, empty.url)
