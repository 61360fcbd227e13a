"""Requests a refresh from the workers. A message contains ids and numbers and no token, and has no reply."""

import threading

from celery import Celery
from kombu import Connection

from worker.broker.address import broker_address
from worker.broker.connection import BROKER_ERRORS, close, connect
from worker.broker.queues import ON_DEMAND, queue
from worker.domain.account import AccountId
from worker.domain.errors import Unavailable
from worker.redis_failures import reason

_TASK = "worker.refresh_account"


class TaskSender:
    """Sends over one connection, which is opened at first use. Thread-safe. Make it after a fork, and close it."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        self._url = url
        self._prefix = prefix
        known = broker_address(url).url
        self._app = Celery("worker-consumer", broker=known, set_as_current=False, task_queues=[queue(ON_DEMAND)])
        # Otherwise the variable CELERY_BROKER_URL, perhaps the application's own, would override the URL.
        self._app.conf.update(broker_read_url=known, broker_write_url=known)
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def request_refresh(self, account: AccountId, *, min_ttl: float | None, rejected: int | None) -> None:
        """Queue one refresh. ``min_ttl`` is in seconds, ``rejected`` the version that a mail server has rejected.

        Sends the message once. Raises Unavailable, after a few seconds at most.
        """
        with self._lock:
            try:
                self._app.send_task(
                    _TASK,
                    (str(account), min_ttl, rejected),
                    queue=ON_DEMAND,
                    declare=[],  # the workers declare it; here a foreign value in Redis would be an error
                    retry=False,
                    ignore_result=True,
                    connection=self._connected(),
                )
            except BROKER_ERRORS as error:
                self._disconnect()
                raise Unavailable(f"the workers cannot be asked: {reason(error)}") from None

    def close(self) -> None:
        with self._lock:
            self._disconnect()
        self._app.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url, prefix=self._prefix)
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection, even if it is broken. The next message opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)
