"""The schema's version: bring it up to date, or say what is missing. The migrations stand in ``alembic/``."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from alembic import command

_HERE = Path(__file__).parent.parent
_PLACES = (_HERE / "migrations", _HERE.parent / "alembic")  # in an installed package; in a checkout


def upgrade() -> None:
    """Run the migrations that are missing, on the database of WORKER_DATABASE_URL. Safe to run twice at once."""
    command.upgrade(_config(), "head")


def pending(connection: Connection) -> list[str]:
    """The revisions this database lacks, oldest first."""
    script = ScriptDirectory.from_config(_config())
    current = MigrationContext.configure(connection).get_current_revision()
    missing = [revision.revision for revision in script.iterate_revisions("head", current or "base")]
    return missing[::-1]


def _config() -> Config:
    place = next(place for place in _PLACES if (place / "env.py").is_file())
    config = Config()
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    return config
