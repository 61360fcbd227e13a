"""The names of the settings that the environment holds, and the changes that development makes to them."""

import os
import re
from pathlib import Path

from worker.domain.errors import ConfigurationError
from worker.settings.mistakes import PREFIX
from worker.settings.models import ReaderSettings, Settings

# Kubernetes sets these in every pod of the namespace for a Service whose name begins with `worker`.
_OF_KUBERNETES = re.compile(r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def secrets_directory() -> Path | None:
    """The directory that WORKER_SECRETS_DIR names, if it names one. Raises ConfigurationError if that is missing."""
    name = os.environ.get(f"{PREFIX}SECRETS_DIR")
    if name and not Path(name).is_dir():
        msg = f"WORKER_SECRETS_DIR names {name}, which is not a directory"
        raise ConfigurationError(msg)
    return Path(name) if name else None


def secret_file(name: str) -> str | None:
    """The line in a file of WORKER_SECRETS_DIR; None if there is no such file.

    Raises ConfigurationError for a file that cannot be read or is empty.
    """
    directory = secrets_directory()
    if directory is None or not (directory / name).exists():
        return None
    try:
        value = (directory / name).read_text().strip()
    except (OSError, ValueError):
        value = ""
    if not value:
        msg = f"the file {name} in WORKER_SECRETS_DIR is empty or cannot be read"
        raise ConfigurationError(msg)
    return value


def check_names() -> None:
    """Raises ConfigurationError for a WORKER_* variable that is no setting, because it is most often a misspelt one."""
    fields = {*Settings.model_fields, *ReaderSettings.model_fields, "secrets_dir"}
    known = {f"{PREFIX}{name}".upper() for name in fields}
    unknown = sorted(
        name
        for name in variables()
        if name not in known and not name.startswith(f"{PREFIX}CLIENTS__") and not _OF_KUBERNETES.fullmatch(name)
    )
    if unknown:
        msg = f"not a setting: {', '.join(unknown)}; the README lists them all"
        raise ConfigurationError(msg)


def variables() -> dict[str, str]:
    """The WORKER_* variables of this process."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def setting_names() -> set[str]:
    """The names of all settings that a variable or a file in WORKER_SECRETS_DIR holds. Raises ConfigurationError."""
    directory = secrets_directory()
    files = {path.name.upper() for path in directory.iterdir()} if directory else set()
    return {*variables(), *(name for name in files if name.startswith(PREFIX))}


def unset_variables() -> None:
    """Remove all WORKER_* variables from this process; development only."""
    for name in variables():
        del os.environ[name]


def set_variables(values: dict[str, str]) -> None:
    """Make these the settings of this process and its children; development only."""
    os.environ.update(values)
