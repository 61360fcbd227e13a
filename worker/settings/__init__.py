"""Settings from WORKER_* variables and files; the only reader of the environment. A mistake is one clear sentence.

Several classes, because not every process needs every secret: beat wants only the broker, ``migrate`` the database, and
a consumer that reads tokens needs neither refresh tokens nor the app registration.
"""

import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from pydantic_settings.sources import NestedSecretsSettingsSource

from worker.domain.account import DEFAULT_CLIENT
from worker.domain.errors import ConfigurationError
from worker.domain.policy import RefreshPolicy
from worker.identity.registration import Registration
from worker.settings.clients import MAIL_SCOPES, MICROSOFT, ClientSettings
from worker.settings.values import (
    BrokerUrl,
    Certificates,
    OptionalPostgresUrl,
    PostgresUrl,
    RedisUrl,
    Seconds,
)
from worker.vault import AccessKey, MasterKey, parse_access_keys, parse_keys

PREFIX = "WORKER_"


class _FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic calls this by position
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env: it would be one more place to look
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = NestedSecretsSettingsSource(
            file_secret_settings, env_prefix=PREFIX, secrets_nested_delimiter="__", secrets_dir_missing="error"
        )
        return init_settings, env_settings, files


class DatabaseSettings(_FromEnvironment):
    """What ``migrate`` needs."""

    database_url: PostgresUrl


class BrokerSettings(_FromEnvironment):
    """What beat and Flower need."""

    redis_url: RedisUrl
    broker_url: BrokerUrl | None = None
    sweep_interval: Seconds = 5.0

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()


class Settings(DatabaseSettings, BrokerSettings):
    """What a worker or a consumer needs."""

    encryption_keys: SecretStr
    client_id: str | None = None
    client_secret: SecretStr | None = None
    client_certificate: Path | None = None
    next_client_secret: SecretStr | None = None
    next_client_certificate: Path | None = None
    authority: str = MICROSOFT
    oidc_authority: str | None = None
    scopes: str = MAIL_SCOPES
    clients: dict[str, ClientSettings] = {}
    ca_bundle: Certificates | None = None

    batch_size: int = Field(default=250, ge=1, le=1000)
    threads: int = Field(default=64, ge=1, le=256)
    rate: int = Field(default=500, ge=1)
    lease: float = Field(default=150.0, ge=60, le=170)
    min_lead: float = Field(default=300.0, ge=0, le=86_400)
    cache_ttl: Seconds = 86_400.0
    events_retention_days: int = Field(default=30, ge=1, le=36_500)

    _default: ClassVar[tuple[str, ...]] = (
        "client_id",
        "client_secret",
        "client_certificate",
        "next_client_secret",
        "next_client_certificate",
        "authority",
        "oidc_authority",
        "scopes",
    )

    @model_validator(mode="after")
    def _has_a_client(self) -> Self:
        if self.client_id is None and not self.clients:
            msg = "set WORKER_CLIENT_ID to the application (client) id of your app registration"
            raise ValueError(msg)
        if self.client_id is not None and DEFAULT_CLIENT in self.clients:
            msg = f"WORKER_CLIENT_ID is the client {DEFAULT_CLIENT!r} already; rename WORKER_CLIENTS__DEFAULT__..."
            raise ValueError(msg)
        return self

    @property
    def keys(self) -> tuple[MasterKey, ...]:
        return parse_keys(self.encryption_keys.get_secret_value())

    @property
    def registrations(self) -> tuple[Registration, ...]:
        named = [client.registration(name) for name, client in self.clients.items()]
        return (*self._default_registration(), *named)

    @property
    def policy(self) -> RefreshPolicy:
        return RefreshPolicy(min_lead=timedelta(seconds=self.min_lead))

    def _default_registration(self) -> tuple[Registration, ...]:
        if self.client_id is None:
            return ()
        values = {name: value for name in self._default if (value := getattr(self, name)) is not None}
        try:
            return (ClientSettings.model_validate(values).registration(DEFAULT_CLIENT),)
        except ValidationError as error:
            raise ConfigurationError(_sentence(error)) from None


class ReaderSettings(_FromEnvironment):
    """What a consumer needs that reads tokens and leaves refreshing to the workers."""

    redis_url: RedisUrl
    broker_url: BrokerUrl | None = None
    database_url: OptionalPostgresUrl = None
    access_keys: SecretStr
    cache_ttl: Seconds = 86_400.0

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def keys(self) -> tuple[AccessKey, ...]:
        return parse_access_keys(self.access_keys.get_secret_value())


class KeySettings(_FromEnvironment):
    """What ``keygen --access`` needs, and what tells a full consumer from one that only reads."""

    encryption_keys: SecretStr | None = None
    access_keys: SecretStr | None = None

    @property
    def keys(self) -> tuple[MasterKey, ...]:
        if self.encryption_keys is None:
            msg = f"WORKER_ENCRYPTION_KEYS is not set: {_HINTS['encryption_keys']}"
            raise ConfigurationError(msg)
        return parse_keys(self.encryption_keys.get_secret_value())


SettingsT = TypeVar("SettingsT", bound=_FromEnvironment)


def load(kind: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read the environment and the files in WORKER_SECRETS_DIR. Raises ConfigurationError: one sentence, no values."""
    directory = os.environ.get(f"{PREFIX}SECRETS_DIR")
    if directory and not Path(directory).is_dir():
        msg = f"WORKER_SECRETS_DIR names {directory}, which is not a directory"
        raise ConfigurationError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unreadable file is reported below as the value it leaves missing
            settings = kind(_secrets_dir=directory, **overrides)  # type: ignore[call-arg]  # pydantic's own keyword
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from None
    except SettingsError:
        msg = "WORKER_CLIENTS is not one variable; write WORKER_CLIENTS__NAME__CLIENT_ID and so on"
        raise ConfigurationError(msg) from None
    _check_all(settings)
    return settings


def load_consumer() -> Settings | ReaderSettings:
    """The settings of a consumer: with WORKER_ACCESS_KEYS and no WORKER_ENCRYPTION_KEYS, of one that only reads."""
    keys = load(KeySettings)
    return load(ReaderSettings) if keys.access_keys and not keys.encryption_keys else load(Settings)


def _check_all(settings: _FromEnvironment) -> None:
    """Find at the start what would otherwise be found at the first refresh."""
    if isinstance(settings, Settings | ReaderSettings):
        _ = settings.keys
    if isinstance(settings, Settings):
        _ = settings.registrations


def check_names() -> None:
    """Raises ConfigurationError for a WORKER_* variable that means nothing here: most often a misspelt one."""
    fields = {*Settings.model_fields, *ReaderSettings.model_fields, "secrets_dir"}
    known = {f"{PREFIX}{name}".upper() for name in fields}
    strange = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and name not in known and not name.startswith(f"{PREFIX}CLIENTS__")
    )
    if strange:
        msg = f"not a setting: {', '.join(strange)}; the README lists them all"
        raise ConfigurationError(msg)


def given() -> dict[str, str]:
    """The WORKER_* variables as they stand, for a development system that fills in the others."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def given_names() -> set[str]:
    """The names of all settings that a variable or a file in WORKER_SECRETS_DIR holds."""
    directory = os.environ.get(f"{PREFIX}SECRETS_DIR")
    files = (
        {path.name.upper() for path in Path(directory).iterdir()} if directory and Path(directory).is_dir() else set()
    )
    return {*given(), *(name for name in files if name.startswith(PREFIX))}


def forget() -> None:
    """Drop all WORKER_* variables from this process, which then knows of no system but its own; development only."""
    for name in given():
        del os.environ[name]


def adopt(values: dict[str, str]) -> None:
    """Make these the settings of this process and its children; development only."""
    os.environ.update(values)


_HINTS = {
    "database_url": "the Postgres URL, postgresql://user:password@host:5432/database",
    "redis_url": "the Redis URL, redis://:password@host:6379/0",
    "access_keys": "a consumer's part of the encryption keys; make it with: token-worker keygen --access",
    "encryption_keys": "id:base64 keys, newest first; make one with: token-worker keygen",
}


def _sentence(error: ValidationError) -> str:
    return "; ".join(_complaint(detail) for detail in error.errors(include_url=False, include_input=False))


def _complaint(detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    name = PREFIX + "__".join(location).upper() if location else ""
    if detail["type"] == "missing":
        hint = _HINTS.get(location[-1], "it has no default")
        return f"{name} is not set: {hint}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    if text.startswith(("CLIENT_", "NEXT_")):  # about two fields of one app registration
        return f"{name or PREFIX.rstrip('_')}{'__' if name else '_'}{text}"
    return f"{name} {text}".strip()
