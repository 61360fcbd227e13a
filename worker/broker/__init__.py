"""The message broker: the queues, requests of consumers to the workers, and a repair of Celery's Redis transport."""

from worker.broker.address import broker_address
from worker.broker.connection import RETRY, answers
from worker.broker.depth import QueueDepths
from worker.broker.inspection import broker_trial
from worker.broker.queues import ON_DEMAND, REFRESH, SWEEP, queue
from worker.broker.read_only import leave_read_only_servers
from worker.broker.repair import repair
from worker.broker.sender import TaskSender

__all__ = [
    "ON_DEMAND",
    "REFRESH",
    "RETRY",
    "SWEEP",
    "QueueDepths",
    "TaskSender",
    "answers",
    "broker_address",
    "broker_trial",
    "leave_read_only_servers",
    "queue",
    "repair",
]
