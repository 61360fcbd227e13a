"""The database of another product, beside the worker's own."""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import pytest

from tests.stores import admin, sibling
from worker.devkit.stack import Stack


@pytest.fixture(name="foreign_url")
def _foreign_url(stack: Stack) -> Iterator[str]:
    name = f"foreign_{uuid4().hex}"
    with closing(admin(stack)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield sibling(stack.database_url, name).replace("postgresql+psycopg://", "postgresql://")
    with closing(admin(stack)) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
