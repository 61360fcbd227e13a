"""The form of each value. A type rejects a value on which a library would fail later, and never quotes it."""

import re
import ssl
from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from worker.domain.errors import InvalidInput
from worker.domain.mail_hosts import parse_mail_hosts
from worker.domain.proxy import parse_proxy
from worker.domain.redis_url import with_settings
from worker.domain.url_parts import AMQP_SCHEMES, check_port, check_shape
from worker.identity.authority import AUTHORITY_FORM, split_authority
from worker.identity.endpoints import parse_endpoint_hosts
from worker.identity.registration import check_scopes
from worker.settings.certificate import read_key_and_certificate
from worker.settings.proxies import NO_PROXY_AT_ALL

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")  # no pattern of Redis, and no colon
_AMQP_FORM = "must look like amqp://user:password@host:5672/vhost"
_TRUE = ("true", "1", "yes")


def _postgres_url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    # Imported here, because beat and most consumers have no Postgres.
    from worker.db.address import parse_url  # noqa: PLC0415

    ca_bundle, password_file = info.data.get("ca_bundle"), info.data.get("database_password_file")
    try:
        return SecretStr(parse_url(value.get_secret_value(), ca_bundle=ca_bundle, password_file=password_file))
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _readable(value: Path) -> Path:
    return _checked_file(value, "a password")


def _assertion(value: Path) -> Path:
    return _checked_file(value, "the client assertion")


def _checked_file(value: Path, content: str) -> Path:
    try:
        value.read_text()
    except (OSError, ValueError):
        msg = f"must be the path of a file with {content}, which this process can read"
        raise ValueError(msg) from None
    return value


def _broker_url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    url = value.get_secret_value()
    if not url:  # containers pass an unset variable as an empty one
        return value
    if not url.startswith(AMQP_SCHEMES):
        return _store_url(url, info, password_file=None)
    try:
        check_shape(url, _AMQP_FORM)
        check_port(urlsplit(url).netloc.rpartition("@")[2], _AMQP_FORM)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return SecretStr(_verified_amqp(url, info.data.get("ca_bundle")))


def _redis_url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    return _store_url(value.get_secret_value(), info, password_file=info.data.get("redis_password_file"))


def _store_url(url: str, info: ValidationInfo, *, password_file: Path | None) -> SecretStr:
    try:
        return SecretStr(with_settings(url, ca_bundle=info.data.get("ca_bundle"), password_file=password_file))
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _verified_amqp(url: str, ca_bundle: Path | None) -> str:
    parts = urlsplit(url)
    if parts.scheme != "amqps":
        return url
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    mode = query.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if mode != "required" or query.get("ssl_check_hostname", "true").lower() not in _TRUE:
        msg = "must verify the server's certificate: leave out ssl_cert_reqs and ssl_check_hostname"
        raise ValueError(msg)
    if ca_bundle:
        query.setdefault("ssl_ca_certs", str(ca_bundle))
    return urlunsplit(parts._replace(query=urlencode(query, safe="/")))


def _authority(value: str) -> str:
    parts = split_authority(value)
    if parts is None or not parts[1]:
        msg = f"must be an https URL such as https://login.microsoftonline.com/common: {AUTHORITY_FORM}"
        raise ValueError(msg)
    return "".join(parts)


def _certificates(value: Path) -> Path:
    """Check that the file holds certificates to trust."""
    try:
        ssl.create_default_context(cafile=str(value))
    except (OSError, ValueError):  # an SSLError is an OSError
        msg = "must be the path of a PEM file with certificates"
        raise ValueError(msg) from None
    return value


def _key_and_certificate(value: Path, info: ValidationInfo) -> Path:
    """Check a client credential, with the password that is set beside it."""
    password = info.data.get(f"{info.field_name}_password")
    read_key_and_certificate(value, password.get_secret_value() if password else None)
    return value


def _scopes(value: str, info: ValidationInfo) -> str:
    words = value.replace(",", " ").split()
    if not words:
        msg = "is empty; leave it out for IMAP and SMTP"
        raise ValueError(msg)
    try:
        check_scopes(tuple(words), oidc=info.data.get("oidc_authority") is not None)
    except InvalidInput as error:
        raise ValueError(str(error).removeprefix("scopes ")) from None
    return " ".join(words)


def _mail_hosts(value: str) -> str:
    try:
        parse_mail_hosts(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return value


def _endpoint_hosts(value: str) -> str:
    try:
        parse_endpoint_hosts(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return value


def _namespace(value: str) -> str:
    if value and not _NAMESPACE.fullmatch(value):
        msg = "must be up to 40 letters, digits, dots, dashes and underscores, the first a letter or digit"
        raise ValueError(msg)
    return value


def key_prefix(namespace: str | None) -> str:
    """With which all keys and queues of the namespace begin in Redis."""
    return f"{namespace}:" if namespace else ""


def _date(value: object) -> object:
    """Check that a variable holds a date."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        msg = "must be a date such as 2027-05-31"
        raise ValueError(msg) from None


def _proxy_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if url and url != NO_PROXY_AT_ALL:
        try:
            parse_proxy(url)
        except InvalidInput as error:
            msg = f"{error}, or be none"
            raise ValueError(msg) from None
    return value


def _none_if_empty(value: object) -> object:
    """Containers pass an unset variable as an empty one."""
    return value or None


CloudName = Annotated[Literal["us-gov", "us-dod", "china"], BeforeValidator(_none_if_empty)]
EndpointHosts = Annotated[str, AfterValidator(_endpoint_hosts)]
MailHosts = Annotated[str, AfterValidator(_mail_hosts)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Scopes = Annotated[str, AfterValidator(_scopes)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
OptionalPostgresUrl = Annotated[PostgresUrl | None, BeforeValidator(_none_if_empty)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
PasswordFile = Annotated[Path, AfterValidator(_readable)]
AssertionFile = Annotated[Path, AfterValidator(_assertion)]
Authority = Annotated[str, AfterValidator(_authority)]
Certificates = Annotated[Path, AfterValidator(_certificates)]
KeyAndCertificate = Annotated[Path, AfterValidator(_key_and_certificate)]
ExpiryDate = Annotated[date, BeforeValidator(_date)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]
