"""Whether the stores of a process answer."""

from contextlib import closing

from redis.exceptions import RedisError

from worker.broker import answers
from worker.cache import connect
from worker.domain.errors import Unavailable
from worker.settings import BrokerSettings, DatabaseSettings


def stores_answer(settings: BrokerSettings) -> bool:
    """Whether Redis and the broker answer, and Postgres, where the settings name it. Takes seconds at most."""
    prefix = settings.key_prefix
    try:
        with connect(settings.redis_url.get_secret_value(), prefix=prefix) as redis:
            redis.ping()
    except RedisError:
        return False
    if isinstance(settings, DatabaseSettings) and not _postgres_answers(settings):
        return False
    return answers(settings.broker, prefix=prefix)


def _postgres_answers(settings: DatabaseSettings) -> bool:
    # Imported here, because beat needs no SQLAlchemy.
    from worker.db.session import Database  # noqa: PLC0415

    with closing(Database(settings.database_url.get_secret_value(), pool_size=1)) as database:
        try:
            database.ping()
        except Unavailable:
            return False
    return True
