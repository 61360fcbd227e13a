"""Part 2: the time of a consumer's read, compared with a bare GET and with MSAL's own cache in Redis."""

import json
import random
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import msal

from bench.provider import ACCESS_TOKEN, LIFETIME, REFRESH_TOKEN, token
from bench.site import Provider, Site
from worker.bootstrap import bootstrap
from worker.cache import connect, stores
from worker.client import TokenClient
from worker.domain.account import account_id
from worker.domain.token import Sealed
from worker.settings import Settings, load
from worker.vault import Purpose, Vault

BARE_GET, GET_AND_OPEN = "bare GET", "bare GET and open"
WITHOUT_MEMORY, WITH_MEMORY = "get without memory", "get with memory"
MSAL = "MSAL cache in Redis"

_SCOPES = ["https://outlook.office.com/IMAP.AccessAsUser.All"]


@dataclass(frozen=True, slots=True)
class Read:
    """Microseconds per read of one way, for each turn."""

    way: str
    turns: tuple[float, ...]

    @property
    def microseconds(self) -> float:
        return statistics.median(self.turns)

    def slower_than(self, other: "Read") -> float:
        """The median ratio to the other way in the same turn."""
        return statistics.median(mine / others for mine, others in zip(self.turns, other.turns, strict=True))


def reads(site: Site, provider: Provider, *, accounts: int, each: int, turns: int) -> list[Read]:
    """Measure all ways in turns, with the same accounts."""
    emails = site.enrol(accounts)
    ways = {BARE_GET: _bare_get(), GET_AND_OPEN: _get_and_open()}
    msal_way = _msal(provider, emails)
    spent: dict[str, list[float]] = {}
    with TokenClient.from_env() as client, closing(bootstrap(load(Settings))) as services:
        ways |= {
            WITHOUT_MEMORY: lambda email: services.tokens.get(email).value,
            WITH_MEMORY: lambda email: client.get(email).value,
            MSAL: msal_way,
        }
        for _ in range(turns):
            some = random.choices(emails, k=each)  # noqa: S311 - no secret
            for way, read in ways.items():
                if way == WITH_MEMORY:
                    client.get_many(some)
                spent.setdefault(way, []).append(_timed(read, some))
    return [Read(way, tuple(times)) for way, times in spent.items()]


def _timed(read: Callable[[str], object], emails: list[str]) -> float:
    begin = time.perf_counter()
    for email in emails:
        if not read(email):
            raise RuntimeError("a read has found nothing")
    return (time.perf_counter() - begin) / len(emails) * 1_000_000


def _bare_get() -> Callable[[str], object]:
    redis = connect(load(Settings).redis_url.get_secret_value())
    return lambda email: redis.get(redis.names.entry(account_id(email)))


def _get_and_open() -> Callable[[str], object]:
    """The least work of a reader: fetch the value, decrypt it, and parse the token."""
    settings = load(Settings)
    redis, vault = connect(settings.redis_url.get_secret_value()), Vault(settings.keys)

    def read(email: str) -> object:
        account = account_id(email)
        value = redis.get(redis.names.entry(account))
        assert isinstance(value, bytes)
        return json.loads(vault.open(Sealed(value[stores._HEADER :]), account, Purpose.CACHE_ENTRY).reveal())[
            "access_token"
        ]

    return read


def _msal(provider: Provider, emails: list[str]) -> Callable[[str], object]:
    """One cache per user, deserialized for each call, as the documentation of SerializableTokenCache shows it."""
    redis = connect(load(Settings).redis_url.get_secret_value())
    app = msal.ConfidentialClientApplication(
        load(Settings).client_id,
        client_credential="secret",
        authority=provider.authority,
        instance_discovery=False,
    )
    for email in emails:
        redis.set(f"msal:{email}", _signed_in(email, provider))

    def read(email: str) -> object:
        cache = msal.SerializableTokenCache()
        value = redis.get(f"msal:{email}")
        assert isinstance(value, bytes)
        cache.deserialize(value.decode())
        app.token_cache = cache
        app.client.on_obtaining_tokens = cache.add
        [account] = app.get_accounts()
        return app.acquire_token_silent(_SCOPES, account=account)["access_token"]

    return read


def _signed_in(email: str, provider: Provider) -> str:
    cache = msal.SerializableTokenCache()
    cache.add(
        {
            "client_id": load(Settings).client_id,
            "scope": _SCOPES,
            "token_endpoint": f"{provider.authority}/oauth2/v2.0/token",
            "response": {
                "access_token": token(ACCESS_TOKEN),
                "refresh_token": token(REFRESH_TOKEN),
                "expires_in": LIFETIME,
                "client_info": "eyJ1aWQiOiIxIiwidXRpZCI6IjIifQ",
                "token_type": "Bearer",
            },
            "data": {"username": email},
        }
    )
    return str(cache.serialize())
