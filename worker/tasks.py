"""The Celery tasks. They take ids, return counts, never see a token, and leave the work to the services."""

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from uuid import UUID

from celery import Task, shared_task
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from worker.domain.account import DEFAULT_CLIENT, AccountId
from worker.domain.errors import AccountError, Unavailable, WorkerError
from worker.domain.token import TokenRequirement

if TYPE_CHECKING:
    from worker.celery import Worker


#: The exceptions that a store or the broker causes. Celery would log the traceback of each.
EXPECTED = (WorkerError, KombuError, RedisError)


def _app(task: "Task[..., object]") -> "Worker":
    return cast("Worker", task.app)


@shared_task(bind=True, name="worker.sweep", throws=EXPECTED)
def sweep(self: "Task[[], int]") -> int:
    """Send as many batches as the due accounts fill and the queue has room for. Returns their number."""
    app = _app(self)
    app.drop_queued_sweeps()
    room = app.queue_room()
    batches = app.services.refresher.batches_due(limit=room) if room > 0 else []
    for client in batches:
        refresh_batch.apply_async((client,))
    with suppress(Unavailable):
        app.services.heartbeats.note_sweep()
    return len(batches)


@shared_task(bind=True, name="worker.refresh_batch", throws=EXPECTED)
def refresh_batch(self: "Task[[str], dict[str, int]]", client: str = DEFAULT_CLIENT) -> dict[str, int]:
    """Refresh one batch of due accounts of an app registration. Returns the number of accounts for each outcome."""
    return _app(self).services.refresher.refresh_due(client)


@shared_task(bind=True, name="worker.refresh_account", throws=EXPECTED)
def refresh_account(
    self: "Task[[str, float | None, int | None], str]",
    account_id: str,
    min_ttl: float | None = None,
    rejected: int | None = None,
) -> str:
    """Refresh one account, unless the cache has a token that satisfies the request.

    The token must live for ``min_ttl`` more seconds and be newer than the ``rejected`` version. Returns ``ok``, or the
    code of the error.
    """
    requirement = TokenRequirement(min_ttl=None if min_ttl is None else timedelta(seconds=min_ttl), newer_than=rejected)
    try:
        _app(self).services.tokens.serve(AccountId(UUID(account_id)), requirement)
    except AccountError as error:
        return error.code
    return "ok"


@shared_task(bind=True, name="worker.prune_events", throws=EXPECTED)
def prune_events(self: "Task[[], int]") -> int:
    """Make the ledger's partitions of the coming days, and drop old ones and old acts. Returns how many it dropped."""
    services = _app(self).services
    services.audit.prune()
    return services.events.maintain()
