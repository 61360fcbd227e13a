"""Reads the settings of a process, and checks at its start what would otherwise fail at the first refresh."""

import warnings
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from worker.domain.errors import ConfigurationError
from worker.settings.environment import secrets_directory
from worker.settings.mistakes import sentence
from worker.settings.models import KeySettings, ReaderSettings, Settings, SettingsT


def load(kind: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read the environment and the files in WORKER_SECRETS_DIR. Raises ConfigurationError: one sentence, no values."""
    directory = secrets_directory()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unreadable file is reported below as the value it leaves missing
            settings = kind(_secrets_dir=directory, **overrides)  # type: ignore[call-arg]  # pydantic's own keyword
    except ValidationError as error:
        raise ConfigurationError(sentence(error)) from None
    except SettingsError:
        msg = "WORKER_CLIENTS is not one variable; write WORKER_CLIENTS__NAME__CLIENT_ID and so on"
        raise ConfigurationError(msg) from None
    _check(settings)
    return settings


def load_consumer() -> Settings | ReaderSettings:
    """The settings of a consumer. With WORKER_ACCESS_KEYS and no WORKER_ENCRYPTION_KEYS it only reads."""
    keys = load(KeySettings)
    return load(ReaderSettings) if keys.access_keys and not keys.encryption_keys else load(Settings)


def _check(settings: object) -> None:
    """Parse the keys and the app registrations."""
    if isinstance(settings, Settings | ReaderSettings):
        _ = settings.keys
    if isinstance(settings, Settings):
        _ = settings.registrations
