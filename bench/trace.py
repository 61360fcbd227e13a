"""The calls, functions, modules and types of the product that one call uses.

``sys.setprofile`` and ``threading.setprofile`` report every Python call of the calling thread and of each thread that
starts meanwhile. Threads that already run are not seen. A frame counts if its file is in worker/ without worker/devkit.

* calls: the frames that were entered. Each resumption of a generator is one more.
* functions: different qualified names among them. A comprehension counts as one, except that from Python 3.12 on only
  generator expressions have frames of their own.
* modules: different files among them.
* depth: the largest number of frames on one stack at a time. Frames of libraries between them do not count.
* types: classes of worker/ that carry data (dataclasses, named tuples, classes with slots; no exceptions) of which the
  call made an instance. An instance is seen by its ``__init__`` or ``__new__``, so a bare tuple and a subclass of
  ``bytes`` or ``str`` without either are missed. Collaborators that live longer than the call were made before it.

Two measurements of one call may differ by a few calls, because a wait is a loop.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import CodeType, FrameType

PRODUCT = Path(__file__).parents[1] / "worker"
_DEVKIT = PRODUCT / "devkit"


def is_product(file: str) -> bool:
    """Whether a module's file is part of the product."""
    path = Path(file)
    return path.is_relative_to(PRODUCT) and not path.is_relative_to(_DEVKIT)


@dataclass(frozen=True, slots=True)
class Trace:
    """The figures of one call; the module's docstring defines them."""

    calls: int
    functions: int
    modules: int
    depth: int
    types: tuple[str, ...]


def trace(call: Callable[[], object], *, counts: Callable[[str], bool] = is_product) -> Trace:
    """Make the call and count the frames that it enters. ``counts`` says which files count. Raises its exceptions."""
    profile = _Profile(counts)
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    codes = {code for code, _ in profile.entered}
    return Trace(
        calls=len(profile.entered),
        functions=len({(code.co_filename, code.co_qualname) for code in codes}),
        modules=len({code.co_filename for code in codes}),
        depth=max((depth for _, depth in profile.entered), default=0),
        types=tuple(sorted({made.__name__ for made in profile.made})),
    )


class _Profile:
    """A profile function. Thread-safe."""

    def __init__(self, counts: Callable[[str], bool]) -> None:
        self._counts = counts
        self._known: dict[str, bool] = {}
        self.entered: list[tuple[CodeType, int]] = []
        self.made: set[type] = set()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call":
            return
        if self._is_counted(frame.f_code.co_filename):
            depth = sum(self._is_counted(each.f_code.co_filename) for each in _stack(frame))
            self.entered.append((frame.f_code, depth))
        made = _made(frame)
        if made and _carries_data(made) and self._is_counted(_file(made)):
            self.made.add(made)

    def _is_counted(self, file: str) -> bool:
        if file not in self._known:
            self._known[file] = self._counts(file)
        return self._known[file]


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame:
        yield frame
        frame = frame.f_back


def _made(frame: FrameType) -> type | None:
    """The class whose constructor the frame is. That of a named tuple is a lambda whose first argument is ``_cls``."""
    code = frame.f_code
    first = code.co_varnames[0] if code.co_argcount else ""
    if code.co_name not in {"__init__", "__new__"} and first != "_cls":
        return None
    value = frame.f_locals.get(first)
    return value if isinstance(value, type) else type(value)


def _carries_data(made: type) -> bool:
    if issubclass(made, BaseException):
        return False
    return is_dataclass(made) or issubclass(made, tuple) or "__slots__" in vars(made)


def _file(made: type) -> str:
    return getattr(sys.modules.get(made.__module__), "__file__", None) or ""
