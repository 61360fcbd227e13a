"""Broadcasts to the workers. Without a password of its own, a command needs no more than write access to the broker."""

from celery.worker.control import Panel

_READ_ONLY = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "heartbeat",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
    }
)
_OF_FLOWER = frozenset({"enable_events"})


def restrict_commands() -> None:
    """Forget all commands that change a worker, in this process."""
    kept = _READ_ONLY | _OF_FLOWER
    for name, command in tuple(Panel.data.items()):
        if command.__name__ not in kept:  # an alias such as `dump_active` has its command's function
            del Panel.data[name]
