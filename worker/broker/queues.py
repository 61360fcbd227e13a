"""The queues, as who sends and who receives must both declare them."""

from kombu import Exchange, Queue

# Read in this order: somebody waits for an on-demand refresh, nobody for a sweep.
ON_DEMAND, SWEEP, REFRESH = "ondemand", "sweep", "refresh"


def queue(name: str) -> Queue:
    """Each with its own exchange and key: on a shared default every queue would get every message."""
    return Queue(name, Exchange(name), routing_key=name)
