"""The message broker: what Celery's own transport needs mended, the queues, and how a consumer asks the workers."""

from worker.broker.queues import ON_DEMAND, REFRESH, SWEEP, queue
from worker.broker.repair import repair
from worker.broker.sender import TaskSender
from worker.broker.tls import tls_options

__all__ = ["ON_DEMAND", "REFRESH", "SWEEP", "TaskSender", "queue", "repair", "tls_options"]
