"""The conditions that must hold after every fault. Each check returns the violations in words."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.chaos.fleet import Fleet
from tests.e2e.foreground import processes_in
from worker.domain.account import Account, Status
from worker.domain.cache_entry import CacheEntry

_OUTBOX = "token-worker:outbox"


def behind(fleet: Fleet, versions: Mapping[str, int]) -> list[str]:
    """The accounts that have not been refreshed since. The schedule has to refresh them, because their tokens are fresh
    and so consumers do not."""
    return [f"{email}: has not been refreshed" for email, now in fleet.versions().items() if now <= versions[email]]


def sign_ins_wanted(fleet: Fleet) -> list[str]:
    """The accounts whose users would have to sign in, although the emulator never demands it here."""
    return [
        f"{account.email}: is {account.status} ({account.failure.code if account.failure else None})"
        for account in fleet.services.accounts.list()
        if account.status is not Status.ACTIVE
    ]


def unsettled(fleet: Fleet) -> list[str]:
    """The violations that may be temporary, and must be."""
    return [*sign_ins_wanted(fleet), *_accounts(fleet), *_leftovers(fleet), *_breakers(fleet), *_processes(fleet)]


def _accounts(fleet: Fleet) -> list[str]:
    return [wrong for stored in fleet.stored() for wrong in _account(fleet, *stored)]


def _account(fleet: Fleet, account: Account, token: str, entry: CacheEntry | None) -> list[str]:
    newest = fleet.emulator.newest_refresh_token(account.email)
    checks = {
        "its lease was left over": account.lease_until,
        "it is failing": account.failure,
        "Postgres has not got Microsoft's newest refresh token": token != newest,
        "it has no access token": account.access_token is None,
        "Redis has no entry": entry is None,
        "Redis and Postgres are of different versions": entry and entry.version != account.version,
        "Redis has not got Microsoft's newest refresh token": entry and fleet.cached_token(entry) != newest,
    }
    return [f"{account.email}: {what}" for what, wrong in checks.items() if wrong]


def _leftovers(fleet: Fleet) -> list[str]:
    redis = fleet.services.redis
    waiting = [f"{account!s}: an outbox entry was left over" for account in redis.hkeys(_OUTBOX)]
    return [*waiting, *(f"{field!s}: an outbox value was set aside" for field in redis.hkeys(f"{_OUTBOX}:unreadable"))]


def _breakers(fleet: Fleet) -> list[str]:
    return [f"the breaker was left at {breaker.code}" for breaker in fleet.services.events.breakers()]


def _processes(fleet: Fleet) -> list[str]:
    started = {process.pid for process in fleet.processes()}
    parents = _parents()
    ours = started | {parents[pid] for pid in started if pid in parents}  # the parent of each is a keeper
    left = {
        pid: name for pid, name in processes_in(fleet.deployment.directory).items() if not _is_of(pid, ours, parents)
    }
    dead = [f"process {process.pid} has ended" for process in fleet.processes() if not process.alive()]
    return [*dead, *(f"process {pid} ({name}) was left over" for pid, name in left.items())]


def _is_of(pid: int | None, ours: set[int], parents: dict[int, int]) -> bool:
    while pid is not None and pid not in ours:
        pid = parents.get(pid)
    return pid is not None


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found
