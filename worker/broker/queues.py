"""The queues. Senders and receivers must declare them alike."""

from kombu import Exchange, Queue

# Workers read them in this order, because a consumer waits for an on-demand refresh.
ON_DEMAND, SWEEP, REFRESH = "ondemand", "sweep", "refresh"


def queue(name: str) -> Queue:
    """A queue with an exchange and a routing key of its own. With shared ones every queue would get every message."""
    return Queue(name, Exchange(name), routing_key=name)
