"""The connections of a client belong to one process. After a fork the child opens its own, and closes no other."""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

from worker.bootstrap import Consumer
from worker.domain.errors import ClientClosed


class PerProcess:
    """Makes a Consumer at its first use, once per process. Thread-safe and fork-safe."""

    def __init__(self, make: Callable[[], Consumer]) -> None:
        self._make = make
        self._made: Consumer | None = None
        self._lock = threading.Lock()
        self.closed = threading.Event()
        _ALL.add(self)

    def get(self) -> Consumer:
        """The Consumer of this process. Raises ClientClosed."""
        made = self._made
        return made if made is not None else self._make_once()

    def close(self) -> None:
        """Close the Consumer of this process. May be called again."""
        with self._lock:
            self.closed.set()
            made, self._made = self._made, None
        if made:
            made.close()

    def begin_child(self) -> None:
        """Called in the child after a fork. It must not close the parent's connections, which the parent still uses."""
        made, self._made = self._made, None
        if made is not None:
            _leak(made)
        self._lock = threading.Lock()  # another thread may have held the old lock at the fork
        was_closed, self.closed = self.closed.is_set(), threading.Event()
        if was_closed:
            self.closed.set()

    def _make_once(self) -> Consumer:
        with self._lock:
            if self.closed.is_set():
                raise ClientClosed
            if self._made is None:
                self._made = self._make()
            return self._made


def _leak(made: Consumer) -> None:
    """Leak the parent's object, because its finalizer would make libcurl close the parent's TLS connections at exit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


_ALL: weakref.WeakSet[PerProcess] = weakref.WeakSet()


def _begin_child() -> None:
    for each in list(_ALL):
        each.begin_child()


os.register_at_fork(after_in_child=_begin_child)
