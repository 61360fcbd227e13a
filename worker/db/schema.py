"""The schema's version: bring it up to date, or say what is missing. The migrations stand in ``alembic/``."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util.exc import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from alembic import command
from worker.db.remedies import UNKNOWN_ROLE, reason
from worker.domain.errors import StorageError, Unavailable

_HERE = Path(__file__).parent.parent
_PLACES = (_HERE / "migrations", _HERE.parent / "alembic")  # in an installed package; in a checkout


def upgrade(role: str = UNKNOWN_ROLE) -> None:
    """Run the migrations that are missing, on the database of WORKER_DATABASE_URL. Safe to run twice at once.

    Raises Unavailable if Postgres cannot be reached, or a long transaction is in the way: each migration is complete or
    undone, so that it can be run again. Raises StorageError with the statement to run if ``role``, the user of the
    connection, lacks a right. Tables of a newer program stay as they are.
    """
    try:
        command.upgrade(_config(), "head")
    except OperationalError as error:
        raise Unavailable(f"the migration could not be run, run it again: {_reason(error, role)}") from None
    except DBAPIError as error:
        raise StorageError(f"the migration could not be run: {_reason(error, role)}") from None
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):  # a revision that this program does not know: see is_newer
            raise


def _reason(error: DBAPIError, role: str) -> str:
    return reason(error.orig or error, role)


def pending(connection: Connection) -> list[str]:
    """The revisions this database lacks, oldest first."""
    if is_newer(connection):
        return []
    missing = [each.revision for each in _script().iterate_revisions("head", _current(connection) or "base")]
    return missing[::-1]


def is_newer(connection: Connection) -> bool:
    """Whether a newer program's migrations have been run: they leave everything that this one needs."""
    current = _current(connection)
    return current is not None and current not in {revision.revision for revision in _script().walk_revisions()}


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    place = next(place for place in _PLACES if (place / "env.py").is_file())
    config = Config()
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    return config
