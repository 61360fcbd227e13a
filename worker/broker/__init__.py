"""The message broker: the queues, requests of consumers to the workers, and a repair of Celery's Redis transport."""

from worker.broker.queues import ON_DEMAND, REFRESH, SWEEP, queue
from worker.broker.repair import repair
from worker.broker.sender import TaskSender
from worker.broker.tls import tls_options

__all__ = ["ON_DEMAND", "REFRESH", "SWEEP", "TaskSender", "queue", "repair", "tls_options"]
