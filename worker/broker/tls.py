"""How the broker's certificate is verified where a URL cannot say it."""

import ssl
from typing import Any
from urllib.parse import urlsplit


def tls_options(url: str) -> dict[str, Any] | bool:
    """Celery's ``broker_use_ssl`` for a URL; False where the URL says all, or TLS is not used.

    py-amqp verifies the chain of an ``amqps://`` server, and compares its name only if it is given one. For ``rediss://``
    the settings put ``ssl_cert_reqs=required`` into the URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "amqps":
        return False
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname}
