"""Tables that ship with the package: CSV files beside this module."""

import csv
import pkgutil
from collections.abc import Iterator


def read_table(file: str) -> Iterator[dict[str, str]]:
    """The rows of a table by column. Raises ValueError for a row that has more or fewer cells than the header."""
    # importlib.resources would do the same, but takes ten milliseconds to import.
    content = pkgutil.get_data(__package__, file)
    assert content is not None
    header, *rows = csv.reader(content.decode().splitlines())
    return (dict(zip(header, row, strict=True)) for row in rows)
