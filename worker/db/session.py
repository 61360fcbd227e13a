"""The engine and its transactions. One Database per process: a connection must not cross a fork."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.db.address import parameters, unverified_hosts, user
from worker.db.moments import load_any_moment
from worker.db.remedies import READ_ONLY, UNKNOWN_ROLE, reason
from worker.domain.errors import ConfigurationError, DatabaseUnavailable, StorageError

_CONNECT_TIMEOUT = 5  # seconds
_STATEMENT_TIMEOUT = 10_000  # milliseconds; the longest statement of a refresh takes a fraction of a second
_ANSWER_TIMEOUT = 12.0  # seconds; longer than any statement may run: a server that takes so long hangs
_POOL_TIMEOUT = 10  # seconds to wait for a free connection

_LIMITS = text(
    f"SELECT set_config('statement_timeout', '{_STATEMENT_TIMEOUT}', true), set_config('timezone', 'UTC', true)"
)
_REFUSES_OPTIONS = "unsupported startup parameter: options"  # PgBouncer and its relatives
_UNKNOWN_NAMES = ("42P01", "42703")  # SQLSTATE of an undefined table, and of an undefined column

_T = TypeVar("_T")


class _Connection(psycopg.Connection[Any]):
    """One that gives up waiting, and receives values in binary, which spares ciphertext the way through hexadecimal."""

    patience = _ANSWER_TIMEOUT  # seconds

    def cursor(self, *args: Any, binary: bool = True, **options: Any) -> Any:
        return super().cursor(*args, binary=binary, **options)

    # A server that hangs keeps its connections open: neither a timeout of its own nor one of TCP ends the waiting.
    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # the answer would be taken for that to the next statement
            raise


class Database:
    """Connections to Postgres. Opens none before the first use. Close it when done."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self._url = url
        self._limits_each_transaction = False  # because a pooler refuses them at the start of a connection
        self._engine = create_engine(
            "postgresql+psycopg://",
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=_POOL_TIMEOUT,
            pool_pre_ping=True,  # a fail-over leaves dead connections behind; find them before a token is spent
            hide_parameters=True,  # an exception's text must not carry a row's values
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT,
                "application_name": "token-refresh-worker",
                # A pooler that hands out connections by transaction would find them on the wrong one; for statements
                # about hundreds of rows, planning anew is not measurable.
                "prepare_threshold": None,
                # A server that has vanished without a word is noticed after about this long, not after two hours.
                "keepalives_idle": 30,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 15_000,  # milliseconds
            },
        )
        event.listen(self._engine, "connect", _adapt)
        event.listen(self._engine, "do_connect", self._connect)

    def _connect(self, _dialect: object, _record: object, _args: object, options: dict[str, Any]) -> _Connection:
        """Called by SQLAlchemy. The parameters are new for each connection, because a password may expire."""
        found = options | parameters(self._url)
        limits = f"{found.get('options', '')} -c statement_timeout={_STATEMENT_TIMEOUT} -c timezone=UTC".strip()
        if not self._limits_each_transaction:
            try:
                return _Connection.connect(**found | {"options": limits})
            except psycopg.OperationalError as error:
                if "options" in found or _REFUSES_OPTIONS not in str(error):
                    raise
            self._limits_each_transaction = True
        return _Connection.connect(**found)

    @contextmanager
    def begin_long(self, limit: timedelta) -> Iterator[Connection]:
        """As ``begin``, for an operator's statements that look at all there is and may take up to ``limit`` each."""
        with self.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, _Connection)
            milliseconds = str(int(limit.total_seconds() * 1000))
            driver.patience = limit.total_seconds() + _ANSWER_TIMEOUT
            try:
                connection.execute(
                    text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": milliseconds}
                )
                yield connection
            finally:
                driver.patience = _ANSWER_TIMEOUT

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction, committed on success.

        Raises DatabaseUnavailable while Postgres cannot be reached or written, ConfigurationError for a schema that was
        not migrated, StorageError for anything else that it refuses.
        """
        try:
            with self._engine.begin() as connection, self._dropped_if_read_only(connection):
                if self._limits_each_transaction:
                    connection.execute(_LIMITS)
                yield connection
        except (DBAPIError, psycopg.Error, PoolTimeout) as error:
            if _is_outage(error):
                raise DatabaseUnavailable(f"the database cannot be used: {self._reason(error)}") from None
            if _sqlstate(error) in _UNKNOWN_NAMES:
                raise ConfigurationError(
                    "the database's tables are missing or old; run: token-worker migrate"
                ) from None
            raise StorageError(f"the database refused a statement: {self._reason(error)}") from None

    @contextmanager
    def _dropped_if_read_only(self, connection: Connection) -> Iterator[None]:
        """Drop all pooled connections if a write meets a read-only server.

        The name of the server may point to another one by now, but a pooled connection stays where it is, and pre-ping
        finds nothing wrong with a replica. SQLAlchemy's ``handle_error`` would not see an error during COPY.
        """
        try:
            yield
        except (DBAPIError, psycopg.Error) as error:
            if _sqlstate(error) == READ_ONLY:
                connection.invalidate()
                self._engine.dispose()
            raise

    def _reason(self, error: Exception) -> str:
        return reason(_cause(error), self.role)

    @property
    def role(self) -> str:
        """The user that the URL names."""
        return user(self._url) or UNKNOWN_ROLE

    @property
    def unverified_hosts(self) -> list[str]:
        """The hosts of the URL in whose place another machine might answer."""
        return unverified_hosts(self._url)

    def ping(self) -> None:
        """Ask the server for one row. Raises DatabaseUnavailable."""
        with self.begin() as connection:
            connection.execute(text("SELECT 1"))

    def utcnow(self) -> datetime:
        """The server's clock, for comparison. Raises DatabaseUnavailable."""
        with self.begin() as connection:
            now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now

    def close(self) -> None:
        self._engine.dispose()


def _adapt(connection: Any, _record: object) -> None:
    """By default psycopg writes arrays as text, which doubles ciphertext, and is escaped here and parsed there."""
    connection.adapters.register_dumper(list, ListBinaryDumper)
    load_any_moment(connection)


def _is_outage(error: DBAPIError | psycopg.Error | PoolTimeout) -> bool:
    if isinstance(error, PoolTimeout) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return True
    cause = _cause(error)
    return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError) or _sqlstate(error) == READ_ONLY


def _sqlstate(error: Exception) -> str | None:
    return getattr(_cause(error), "sqlstate", None)


def _cause(error: Exception) -> BaseException:
    """The driver's exception: SQLAlchemy wraps it, except during COPY."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error
