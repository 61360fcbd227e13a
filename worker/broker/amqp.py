"""Celery's connections, with a password from a file."""

from functools import partial
from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection


class Connections(AMQP):
    """Celery itself passes no ``credential_provider`` on. The application has it as an attribute."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.Connection: Any = partial(Connection, credential_provider=app.credential_provider)
