"""The README's table of settings is true."""

import re
from pathlib import Path

from tests.unit.settings.environment import COMPLETE, Environment
from worker.settings import ReaderSettings, Settings, load

README = Path(__file__).parents[3] / "README.md"


def documented() -> dict[str, str]:
    """The README's table: what stands in the default's column, by variable."""
    rows = re.findall(r"^\| (`WORKER_[^|]+)\|([^|]*)\|", README.read_text(), re.MULTILINE)
    found: dict[str, str] = {}
    for cell, default in rows:
        names = re.findall(r"`(WORKER_\w+)`", cell)
        parts = default.split(", ") if len(names) > 1 else [default]
        found |= dict(zip(names, (part.strip() for part in parts), strict=True))
    return found


def test_the_readme_lists_exactly_the_settings_there_are() -> None:
    """A setting nobody can find is of no use, one that does nothing is worse."""
    fields = {*Settings.model_fields, *ReaderSettings.model_fields} - {
        "clients",
        "threads",
    }  # the old name of `connections`
    settings = {f"WORKER_{name.upper()}" for name in fields}

    assert set(documented()) == settings | {"WORKER_CLIENTS__NAME__CLIENT_ID", "WORKER_SECRETS_DIR"}


def test_the_readme_says_what_is_required() -> None:
    """No more and no less than what stops the start."""
    required = {name for name, default in documented().items() if default == "*required*"}

    assert required == set(COMPLETE) - {"WORKER_CLIENT_SECRET"}


def test_the_readme_gives_the_defaults_there_are(environment: Environment) -> None:
    """In code, if they are values; where words stand instead there is no value, or the list of scopes."""
    settings = load(Settings)
    given = {name: default for name, default in documented().items() if not default.startswith("*")}
    del given["WORKER_SECRETS_DIR"], given["WORKER_CLIENTS__NAME__CLIENT_ID"], given["WORKER_SCOPES"]
    del given["WORKER_ACCESS_KEYS"]  # only who has nothing else reads it

    actual = {name: getattr(settings, name.removeprefix("WORKER_").lower()) for name in given}

    values = {name: default.strip("`") for name, default in given.items() if default.startswith("`")}
    assert values == {name: _as_written(actual[name]) for name in values}
    assert {name for name, value in actual.items() if value is None} == set(given) - set(values)


def _as_written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and value < 10_000 else str(value).removesuffix(".0")
