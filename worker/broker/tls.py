"""Verification of the broker's certificate, where the broker's URL cannot demand it."""

import ssl
from typing import Any
from urllib.parse import urlsplit


def tls_options(url: str) -> dict[str, Any] | bool:
    """Celery's ``broker_use_ssl`` for a URL. False for ``rediss://`` and for URLs without TLS.

    py-amqp verifies the chain of an ``amqps://`` server, and compares the host name only if it is given one. For
    ``rediss://`` the settings put ``ssl_cert_reqs=required`` into the URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "amqps":
        return False
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname}
