"""The settings of one app registration: its client id, its credentials and its authority."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from worker.domain.account import MailServers
from worker.domain.clouds import CLOUDS
from worker.domain.errors import ConfigurationError
from worker.domain.token import Secret
from worker.identity.registration import ClientCredential, Registration
from worker.settings.certificate import read_key_and_certificate
from worker.settings.values import AssertionFile, Authority, CloudName, ExpiryDate, KeyAndCertificate, Scopes

MICROSOFT = "https://login.microsoftonline.com/common"
MAIL_SCOPES = "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send"


class ClientSettings(BaseModel):
    """One app registration."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    client_certificate_password: SecretStr | None = None  # before the file, which it opens
    client_certificate: KeyAndCertificate | None = None
    client_assertion_file: AssertionFile | None = None
    next_client_secret: SecretStr | None = None
    next_client_certificate_password: SecretStr | None = None
    next_client_certificate: KeyAndCertificate | None = None
    next_client_assertion_file: AssertionFile | None = None
    # For the exporter: Microsoft shows the end of a secret to people only.
    client_secret_expires: ExpiryDate | None = None
    next_client_secret_expires: ExpiryDate | None = None
    cloud: CloudName | None = None
    authority: Authority = MICROSOFT
    oidc_authority: Authority | None = None
    scopes: Scopes = MAIL_SCOPES

    @model_validator(mode="before")
    @classmethod
    def _of_one_cloud(cls, values: Any) -> Any:
        return _with_cloud(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        current = _filled(self.client_secret), self.client_certificate, self.client_assertion_file
        if sum(map(bool, current)) != 1:
            msg = "CLIENT_SECRET, its CLIENT_CERTIFICATE or its CLIENT_ASSERTION_FILE must be set, and not several"
            raise ValueError(msg)
        following = _filled(self.next_client_secret), self.next_client_certificate, self.next_client_assertion_file
        if sum(map(bool, following)) > 1:
            msg = "NEXT_CLIENT_SECRET, NEXT_CLIENT_CERTIFICATE or NEXT_CLIENT_ASSERTION_FILE: set one of them only"
            raise ValueError(msg)
        return self

    def registration(self, name: str) -> Registration:
        """Raises ConfigurationError for a certificate that has been replaced by something else since it was checked."""
        given = (
            (
                self.client_secret,
                self.client_certificate,
                self.client_assertion_file,
                self.client_certificate_password,
            ),
            (
                self.next_client_secret,
                self.next_client_certificate,
                self.next_client_assertion_file,
                self.next_client_certificate_password,
            ),
        )
        try:
            credentials = tuple(_credential(*each) for each in given if any(each[:3]))
        except ValueError as error:
            raise ConfigurationError(f"the certificate of app registration {name!r} {error}") from None
        return Registration(
            name=name,
            client_id=self.client_id,
            authority=self.oidc_authority or self.authority,
            oidc=self.oidc_authority is not None,
            scopes=tuple(self.scopes.split()),
            credentials=credentials,
            mail=CLOUDS[self.cloud].mail if self.cloud else MailServers(),
        )


def _with_cloud(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the authority and the scopes of the cloud, unless others are set. Raises ValueError for parts of
    different clouds: Microsoft would refuse every refresh, or a token would go to hosts that do not take it."""
    authority = values.get("authority") or MICROSOFT
    host, has_default_scopes = _host(authority), (values.get("scopes") or MAIL_SCOPES) == MAIL_SCOPES
    cloud = CLOUDS.get(values.get("cloud") or "")
    if cloud is None:
        if has_default_scopes and not values.get("oidc_authority") and host in {each.host for each in CLOUDS.values()}:
            names = " or ".join(name for name, each in CLOUDS.items() if each.host == host)
            msg = f"AUTHORITY is of a national cloud, and the scopes are not: set CLOUD to {names}"
            raise ValueError(msg)
        return values
    if values.get("oidc_authority"):
        raise ValueError("CLOUD and OIDC_AUTHORITY are both set; set one of them")
    if authority != MICROSOFT and host != cloud.host:
        msg = f"AUTHORITY is not of CLOUD {values['cloud']}, whose host is {cloud.host}"
        raise ValueError(msg)
    own = {"authority": cloud.authority} if authority == MICROSOFT else {}
    return {**values, **own, **({"scopes": cloud.scopes} if has_default_scopes else {})}


def _host(authority: object) -> str | None:
    """None for what is no URL, which the field itself refuses."""
    with suppress(ValueError):
        return urlsplit(str(authority)).hostname
    return None


def _filled(secret: SecretStr | None) -> str | None:
    """The secret's value. An empty variable counts as none."""
    return (secret.get_secret_value() or None) if secret else None


def _credential(
    secret: SecretStr | None, certificate: Path | None, assertion_file: Path | None, password: SecretStr | None
) -> ClientCredential:
    value = _filled(secret)
    return ClientCredential(
        assertion_file=assertion_file,
        secret=Secret(value) if value else None,
        certificate=Secret(read_key_and_certificate(certificate, _filled(password))) if certificate else None,
    )
