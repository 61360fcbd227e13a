"""Settings from WORKER_* variables and files; the only reader of the environment. A mistake is one clear sentence."""

from worker.settings.environment import (
    check_names,
    secret_file,
    set_variables,
    setting_names,
    unset_variables,
    variables,
)
from worker.settings.exporter import DatedCredential, ExporterSettings
from worker.settings.load import load, load_consumer
from worker.settings.mistakes import PREFIX
from worker.settings.models import (
    BrokerSettings,
    DatabaseSettings,
    KeySettings,
    ReaderSettings,
    Settings,
    SettingsT,
)
from worker.settings.watched import WatchedSettings

__all__ = [
    "PREFIX",
    "BrokerSettings",
    "DatabaseSettings",
    "DatedCredential",
    "ExporterSettings",
    "KeySettings",
    "ReaderSettings",
    "Settings",
    "SettingsT",
    "WatchedSettings",
    "check_names",
    "load",
    "load_consumer",
    "secret_file",
    "set_variables",
    "setting_names",
    "unset_variables",
    "variables",
]
