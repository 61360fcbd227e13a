"""Settings from WORKER_* variables and files; the only reader of the environment. A mistake is one clear sentence."""

from worker.settings.environment import PREFIX, adopt, check_names, forget, given, given_names
from worker.settings.load import load, load_consumer
from worker.settings.models import (
    BrokerSettings,
    DatabaseSettings,
    KeySettings,
    ReaderSettings,
    Settings,
    SettingsT,
)

__all__ = [
    "PREFIX",
    "BrokerSettings",
    "DatabaseSettings",
    "KeySettings",
    "ReaderSettings",
    "Settings",
    "SettingsT",
    "adopt",
    "check_names",
    "forget",
    "given",
    "given_names",
    "load",
    "load_consumer",
]
