"""The id of this database, by which Redis knows whose fleet uses a namespace."""

from uuid import UUID

from sqlalchemy import Connection, text


def read_id(connection: Connection) -> UUID | None:
    """None if an operator has deleted the row."""
    found: UUID | None = connection.execute(text("SELECT id FROM fleet")).scalar()
    return found
