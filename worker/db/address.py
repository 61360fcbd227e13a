"""Where Postgres is: all forms of a URL that libpq knows, and a file with the password."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from worker.domain.errors import InvalidInput
from worker.domain.url_parts import check_encoding, check_port, check_shape

FORM = "must look like postgresql://user:password@host:5432/database"
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PASSWORD_FILE = "password_file"  # noqa: S105 - the name of a parameter, which libpq does not know
_WORD = re.compile(r"[a-z_]{1,40}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def parse_url(url: str, *, ca_bundle: Path | None = None, password_file: Path | None = None) -> str:
    """The URL in the form of libpq, with the certificate authorities and the password file of the settings.

    Raises InvalidInput, which names the part of the URL that is wrong and quotes nothing of it.
    """
    check_shape(url, FORM)
    check_encoding(url)
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise InvalidInput(f"has an unknown scheme: it {FORM}")
    place, _, query = rest.partition("?")
    for host in place.partition("/")[0].rpartition("@")[2].split(","):
        check_port(host, FORM)
    pairs = _joined_hosts(parse_qsl(query, keep_blank_values=True))
    _check(place, pairs)
    names = dict(pairs)
    if ca_bundle and names.get("sslmode", "").startswith("verify-") and "sslrootcert" not in names:
        pairs.append(("sslrootcert", str(ca_bundle)))
    if password_file and _PASSWORD_FILE not in names:
        pairs.append((_PASSWORD_FILE, str(password_file)))
    return f"postgresql://{place}{'?' if pairs else ''}{_encoded(pairs)}"


def parameters(url: str) -> dict[str, Any]:
    """libpq's parameters for a connection that is made now. Raises psycopg.OperationalError without the password."""
    found, file = _split(url)
    if file:
        found["password"] = _read(file)
    return found


def user(url: str) -> str | None:
    """The user that the URL names."""
    found, _ = _split(url)
    return found.get("user")


def unverified_hosts(url: str) -> list[str]:
    """The foreign hosts whose certificate libpq does not compare with their name. A stranger on the way to them could
    read the password."""
    found, _ = _split(url)
    if found.get("sslmode") == "verify-full":
        return []
    hosts = (found.get("host") or found.get("hostaddr") or "").split(",")
    return [host for host in hosts if host and not host.startswith(("/", "@")) and host not in _LOOPBACK]


def _split(url: str) -> tuple[dict[str, Any], str | None]:
    """libpq's parameters in the URL, and the file with the password."""
    place, _, query = parse_url(url).partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    found = conninfo_to_dict(f"{place}?{_encoded([pair for pair in pairs if pair[0] != _PASSWORD_FILE])}")
    return found, dict(pairs).get(_PASSWORD_FILE)


def _check(place: str, pairs: Sequence[tuple[str, str]]) -> None:
    try:
        found = conninfo_to_dict(f"postgresql://{place}?{_encoded([p for p in pairs if p[0] != _PASSWORD_FILE])}")
    except psycopg.Error as error:
        unknown = next((name for name, _ in pairs if _WORD.fullmatch(name) and f'"{name}"' in str(error)), None)
        raise InvalidInput(
            f"has the parameter {unknown}, which libpq does not know" if unknown else f"cannot be parsed: it {FORM}"
        ) from None
    if not {"host", "hostaddr", "service"} & found.keys():
        raise InvalidInput(f"names no host: it {FORM}, or postgresql:///database?host=/directory/of/the/socket")
    if found.get("sslmode", "prefer") not in _SSL_MODES:
        raise InvalidInput(f"has an unknown sslmode: it is one of {', '.join(_SSL_MODES)}")


def _joined_hosts(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """SQLAlchemy repeats ``host=name:port``. libpq would take the last one only."""
    hosts = [value for name, value in pairs if name == "host"]
    if len(hosts) <= 1:
        return list(pairs)
    for host in hosts:
        check_port(host, FORM)
    split = [host.rpartition(":") if ":" in host else (host, "", "") for host in hosts]
    others = [pair for pair in pairs if pair[0] not in {"host", "port"}]
    return [*others, ("host", ",".join(part[0] for part in split)), ("port", ",".join(part[2] for part in split))]


def _encoded(pairs: Sequence[tuple[str, str]]) -> str:
    return urlencode(pairs, quote_via=quote, safe="/,")


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise psycopg.OperationalError(f"WORKER_DATABASE_PASSWORD_FILE cannot be read: {reason}") from None
