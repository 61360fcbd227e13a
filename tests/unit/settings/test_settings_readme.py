"""The README's table of settings is correct."""

import re
from pathlib import Path

from tests.unit.settings.environment import COMPLETE, Environment
from worker.settings import ReaderSettings, Settings, load

README = Path(__file__).parents[3] / "README.md"


def documented() -> dict[str, str]:
    """The column of the defaults in the README's table, by variable."""
    rows = re.findall(r"^\| (`WORKER_[^|]+)\|([^|]*)\|", README.read_text(), re.MULTILINE)
    found: dict[str, str] = {}
    for cell, default in rows:
        names = re.findall(r"`(WORKER_\w+)`", cell)
        parts = default.split(", ") if len(names) > 1 else [default]
        found |= dict(zip(names, (part.strip() for part in parts), strict=True))
    return found


def test_the_readme_lists_exactly_the_settings_there_are() -> None:
    """Operators find settings there, and every one of them must have an effect."""
    fields = {*Settings.model_fields, *ReaderSettings.model_fields} - {
        "clients",
        "threads",
    }  # the old name of `connections`
    settings = {f"WORKER_{name.upper()}" for name in fields}

    assert set(documented()) == settings | {"WORKER_CLIENTS__NAME__CLIENT_ID", "WORKER_SECRETS_DIR"}


def test_the_readme_says_what_is_required() -> None:
    """These are the settings without which no process starts."""
    required = {name for name, default in documented().items() if default == "*required*"}

    assert required == set(COMPLETE) - {"WORKER_CLIENT_SECRET"}


def test_the_readme_gives_the_defaults_there_are(environment: Environment) -> None:
    """Values are in code spans. Words stand for the list of scopes, or mean that there is no value."""
    settings = load(Settings)
    given = {name: default for name, default in documented().items() if not default.startswith("*")}
    del given["WORKER_SECRETS_DIR"], given["WORKER_CLIENTS__NAME__CLIENT_ID"], given["WORKER_SCOPES"]
    del given["WORKER_ACCESS_KEYS"]  # a setting of other consumers

    actual = {name: getattr(settings, name.removeprefix("WORKER_").lower()) for name in given}

    values = {name: default.strip("`") for name, default in given.items() if default.startswith("`")}
    assert values == {name: _as_written(actual[name]) for name in values}
    assert {name for name, value in actual.items() if value is None} == set(given) - set(values)


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value < 10_000 else str(value).removesuffix(".0")
