"""One time limit for a whole login: a server that sends a byte now and then must not hold it for longer."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, never below zero."""
        return max(0.0, self._end - monotonic())


@contextmanager
def cut_off(connection: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Shuts the connection down if the block is still busy at the deadline; its reads and writes then fail at once.

    The time limit of a socket is for one read, and libraries read in loops. The twin descriptor stays valid when TLS
    takes over the socket.
    """
    with connection.dup() as twin:
        timer = threading.Timer(deadline.left, _shut_down, (twin,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
