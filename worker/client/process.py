"""What a client works with belongs to one process: after a fork the child makes its own, and leaves the parent's be."""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

from worker.bootstrap import Consumer
from worker.domain.errors import ClientClosed


class PerProcess:
    """Made at first use, once per process. Thread- and fork-safe."""

    def __init__(self, make: Callable[[], Consumer]) -> None:
        self._make = make
        self._made: Consumer | None = None
        self._lock = threading.Lock()
        self.closed = threading.Event()
        _ALL.add(self)

    def get(self) -> Consumer:
        """Raises ClientClosed."""
        made = self._made
        return made if made is not None else self._make_once()

    def close(self) -> None:
        """Close what this process has made; may be repeated."""
        with self._lock:
            self.closed.set()
            made, self._made = self._made, None
        if made:
            made.close()

    def begin_child(self) -> None:
        """After a fork. The parent's connections are kept, unused: to close them here would end them there."""
        made, self._made = self._made, None
        if made is not None:
            _keep_for_ever(made)
        self._lock = threading.Lock()  # the old one may have been held at that moment
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


def _keep_for_ever(made: Consumer) -> None:
    """Even when the interpreter ends and drops all it knows of: libcurl would say goodbye to the parent's servers."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


_ALL: weakref.WeakSet[PerProcess] = weakref.WeakSet()


def _begin_child() -> None:
    for each in list(_ALL):
        each.begin_child()


os.register_at_fork(after_in_child=_begin_child)
