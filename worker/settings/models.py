"""The settings of each kind of process: none needs every secret, and beat and Flower need only the broker."""

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import NestedSecretsSettingsSource

from worker.domain.account import DEFAULT_CLIENT
from worker.domain.errors import ConfigurationError
from worker.domain.policy import RefreshPolicy
from worker.domain.proxy import ProxyRules
from worker.identity.registration import Registration
from worker.settings.clients import MAIL_SCOPES, MICROSOFT, ClientSettings
from worker.settings.keys_command import with_keys
from worker.settings.mistakes import HINTS, PREFIX, sentence
from worker.settings.proxies import proxy_rules
from worker.settings.renamed import move_old_names
from worker.settings.values import (
    BrokerUrl,
    Certificates,
    EndpointHosts,
    ExpiryDate,
    MailHosts,
    Namespace,
    OptionalPostgresUrl,
    PasswordFile,
    PostgresUrl,
    ProxyUrl,
    RedisUrl,
    Seconds,
    key_prefix,
)
from worker.vault import AccessKey, MasterKey, parse_access_keys, parse_keys


class _FromEnvironment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        defer_build=True,  # a process uses one or two of these classes
    )

    ca_bundle: Certificates | None = None  # here, because the URLs of the stores are made with it
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic calls this by position
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - a .env file would be one more place to look at
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = NestedSecretsSettingsSource(
            file_secret_settings, env_prefix=PREFIX, secrets_nested_delimiter="__", secrets_dir_missing="error"
        )
        return init_settings, env_settings, files


class DatabaseSettings(_FromEnvironment):
    """The settings of ``token-worker migrate``."""

    database_password_file: PasswordFile | None = None
    database_url: PostgresUrl


class BrokerSettings(_FromEnvironment):
    """The settings of beat and Flower."""

    redis_password_file: PasswordFile | None = None
    redis_url: RedisUrl
    broker_url: BrokerUrl | None = None
    namespace: Namespace | None = None
    sweep_interval: Seconds = 5.0
    remote_control: bool = False

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def key_prefix(self) -> str:
        return key_prefix(self.namespace)


class Settings(DatabaseSettings, BrokerSettings):
    """The settings of a worker, and of a consumer that also stores grants and refreshes."""

    encryption_keys: SecretStr
    encryption_keys_command: str | None = Field(default=None, repr=False)
    client_id: str | None = None
    client_secret: SecretStr | None = None
    client_certificate_password: SecretStr | None = None
    client_certificate: Path | None = None
    client_assertion_file: Path | None = None
    next_client_secret: SecretStr | None = None
    next_client_certificate_password: SecretStr | None = None
    next_client_certificate: Path | None = None
    next_client_assertion_file: Path | None = None
    client_secret_expires: ExpiryDate | None = None
    next_client_secret_expires: ExpiryDate | None = None
    cloud: str | None = None
    authority: str = MICROSOFT
    oidc_authority: str | None = None
    scopes: str = MAIL_SCOPES
    clients: dict[str, ClientSettings] = {}
    endpoint_hosts: EndpointHosts | None = None

    batch_size: int = Field(default=250, ge=1, le=1000)
    connections: int = Field(default=64, ge=1, le=256)
    threads: None = Field(default=None, exclude=True, repr=False)  # the old name of `connections`
    rate: int = Field(default=500, ge=1)
    lease: float = Field(default=150.0, ge=60, le=170)
    min_lead: float = Field(default=300.0, ge=0, le=86_400)
    cache_ttl: Seconds = 86_400.0
    mail_hosts: MailHosts | None = None
    proxy: ProxyUrl | None = None
    events_retention_days: int = Field(default=30, ge=1, le=36_500)
    successes_retention_days: int = Field(default=2, ge=1, le=36_500)
    audit_retention_days: int = Field(default=400, ge=1, le=36_500)

    _default: ClassVar[tuple[str, ...]] = (
        "client_id",
        "client_secret",
        "client_certificate_password",
        "client_certificate",
        "client_assertion_file",
        "next_client_secret",
        "next_client_certificate_password",
        "next_client_certificate",
        "next_client_assertion_file",
        "client_secret_expires",
        "next_client_secret_expires",
        "cloud",
        "authority",
        "oidc_authority",
        "scopes",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        return with_keys(move_old_names(values))

    @model_validator(mode="after")
    def _has_a_usable_proxy(self) -> Self:
        assert self.proxies is not None  # raises for an HTTPS_PROXY that cannot be used
        return self

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
    def files(self) -> list[Path]:
        """The files whose content is part of the settings."""
        paths = [self.ca_bundle, self.client_certificate, self.next_client_certificate]
        for client in self.clients.values():
            paths += [client.client_certificate, client.next_client_certificate]
        return [path for path in paths if path]

    @property
    def proxies(self) -> ProxyRules:
        return proxy_rules(self.proxy)

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
            raise ConfigurationError(sentence(error)) from None


class ReaderSettings(_FromEnvironment):
    """The settings of a consumer that reads tokens and leaves refreshing to the workers."""

    redis_password_file: PasswordFile | None = None
    redis_url: RedisUrl
    broker_url: BrokerUrl | None = None
    namespace: Namespace | None = None
    database_password_file: PasswordFile | None = None
    database_url: OptionalPostgresUrl = None
    access_keys: SecretStr
    cache_ttl: Seconds = 86_400.0
    mail_hosts: MailHosts | None = None
    proxy: ProxyUrl | None = None

    @property
    def proxies(self) -> ProxyRules:
        return proxy_rules(self.proxy)

    @property
    def policy(self) -> RefreshPolicy:
        return RefreshPolicy()

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def key_prefix(self) -> str:
        return key_prefix(self.namespace)

    @property
    def keys(self) -> tuple[AccessKey, ...]:
        return parse_access_keys(self.access_keys.get_secret_value())


class KeySettings(_FromEnvironment):
    """The keys: those of ``keygen --access``, and those by which ``load_consumer`` chooses the kind of consumer."""

    encryption_keys: SecretStr | None = None
    encryption_keys_command: str | None = Field(default=None, repr=False)
    access_keys: SecretStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _run_the_command(cls, values: dict[str, Any]) -> dict[str, Any]:
        return with_keys(values)

    @property
    def keys(self) -> tuple[MasterKey, ...]:
        if self.encryption_keys is None:
            msg = f"WORKER_ENCRYPTION_KEYS is not set: {HINTS['encryption_keys']}"
            raise ConfigurationError(msg)
        return parse_keys(self.encryption_keys.get_secret_value())


SettingsT = TypeVar("SettingsT", bound=_FromEnvironment)
