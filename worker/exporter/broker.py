"""The metrics that the broker yields at each scrape: the lengths of the queues."""

from worker.broker import ON_DEMAND, REFRESH, SWEEP, QueueDepths
from worker.exporter.families import Reading, gauges


class BrokerState:
    """Messages that no worker has taken yet. Not thread-safe."""

    name = "broker"

    def __init__(self, url: str, *, prefix: str) -> None:
        self._depths = QueueDepths(url, prefix=prefix)

    def read(self) -> Reading:
        """Raises Unavailable."""
        depths = self._depths.read([ON_DEMAND, SWEEP, REFRESH])
        samples = (((queue,), depth) for queue, depth in depths.items())
        return Reading([gauges("queue_messages", "Messages that wait in the queue", ["queue"], samples)])

    def close(self) -> None:
        self._depths.close()
