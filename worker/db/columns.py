"""The columns of a statement about many rows."""

from collections.abc import Iterable, Mapping
from typing import Any


class Columns:
    """Columns of an ``unnest``: name and Postgres type, declared once. Binds one array per column."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types

    def __str__(self) -> str:
        """For a FROM clause: ``unnest(...) AS n(...)``; ``n.number`` is the row's place, from 1."""
        arrays = ", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in self._types.items())
        return f"unnest({arrays}) WITH ORDINALITY AS n({', '.join(self._types)}, number)"

    def arrays(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """The statement's parameters. A column that is NULL in every row is sent as an empty array."""
        given = list(rows)
        columns = {name: [row[name] for row in given] for name in self._types}
        return {name: values if any(v is not None for v in values) else [] for name, values in columns.items()}
