"""The way to the internet: WORKER_PROXY, or HTTPS_PROXY as other programs read it; and NO_PROXY."""

import os

from pydantic import SecretStr

from worker.domain.errors import ConfigurationError, InvalidInput
from worker.domain.proxy import LOOPBACK, ProxyRules, parse_exceptions, parse_proxy

NO_PROXY_AT_ALL = "none"  #: the value of WORKER_PROXY for direct connections


def proxy_rules(given: SecretStr | None) -> ProxyRules:
    """``given`` is WORKER_PROXY. Raises ConfigurationError for an HTTPS_PROXY that cannot be used."""
    exceptions = tuple(parse_exceptions(_variable("no_proxy")))
    if given is not None and given.get_secret_value():
        url = given.get_secret_value()
        return ProxyRules() if url == NO_PROXY_AT_ALL else ProxyRules(proxy=parse_proxy(url), exceptions=exceptions)
    url = _variable("https_proxy")
    if not url:
        return ProxyRules()
    try:
        proxy = parse_proxy(url if "://" in url else f"http://{url}")
    except InvalidInput as error:
        msg = f"HTTPS_PROXY {error}; WORKER_PROXY=none connects directly"
        raise ConfigurationError(msg) from None
    # It is meant for every program of the machine, and so not for servers on the machine.
    return ProxyRules(proxy=proxy, exceptions=(*exceptions, *LOOPBACK))


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""
