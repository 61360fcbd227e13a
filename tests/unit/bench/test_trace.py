"""The figures of a call: of a tiny package, and of a thread that the call starts."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bench.trace import PRODUCT, Trace, is_product, trace

MODULES = {
    "tiny_values": """
        from dataclasses import dataclass
        from typing import NamedTuple

        @dataclass
        class Row:
            number: int

        @dataclass(frozen=True, slots=True)
        class Result:
            number: int

        class Pair(NamedTuple):
            left: int
            right: int

        class Slotted:
            __slots__ = ("number",)
            def __init__(self, number):
                self.number = number

        class Collaborator:
            def __init__(self):
                self.seen = 0

        class Refusal(Exception):
            __slots__ = ()
            def __init__(self):
                super().__init__("no")
        """,
    "tiny_steps": """
        from tiny_values import Collaborator, Pair, Refusal, Result, Row, Slotted

        def nothing():
            return None

        def all_kinds():
            Row(1), Result(1), Pair(1, 2), Slotted(1), Collaborator()
            try:
                raise Refusal
            except Refusal:
                return None

        def deep():
            return middle() + middle()

        def middle():
            return sum(each for each in (leaf(), leaf()))

        def leaf():
            return 1

        def through(library):
            return library(leaf)
        """,
}


@pytest.fixture(name="steps")
def _steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text("\n".join(line.removeprefix("        ") for line in source.splitlines()))
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("tiny_steps")
    for name in MODULES:
        del sys.modules[name]


def is_tiny(file: str) -> bool:
    return Path(file).name.startswith("tiny_")


def test_smallest_call_is_one_of_everything_and_makes_no_type(steps: ModuleType) -> None:
    assert trace(steps.nothing, counts=is_tiny) == Trace(calls=1, functions=1, modules=1, depth=1, types=())


def test_functions_count_once_and_generators_at_each_resumption(steps: ModuleType) -> None:
    """deep; twice middle with two leaves, and a generator expression that gives 1, 1 and its end."""
    assert trace(steps.deep, counts=is_tiny) == Trace(calls=13, functions=4, modules=1, depth=3, types=())


def test_types_are_those_that_carry_data(steps: ModuleType) -> None:
    """Generated constructors are no frames of the package. Exceptions and collaborators are no data."""
    found = trace(steps.all_kinds, counts=is_tiny)
    assert found.types == ("Pair", "Result", "Row", "Slotted")
    assert (found.functions, found.modules) == (4, 2)


def test_frames_of_others_do_not_count_and_do_not_deepen(steps: ModuleType) -> None:
    found = trace(lambda: steps.through(lambda leaf: leaf()), counts=is_tiny)
    assert (found.calls, found.depth) == (2, 2)


def test_thread_that_the_call_starts_counts_and_one_that_ran_before_does_not(steps: ModuleType) -> None:
    begin, done = threading.Event(), threading.Event()

    def earlier() -> None:
        begin.wait(10)
        steps.deep()
        done.set()

    threading.Thread(target=earlier).start()

    def call() -> None:
        begin.set()
        done.wait(10)
        started = threading.Thread(target=steps.nothing)
        started.start()
        started.join()

    assert trace(call, counts=is_tiny).calls == 1


def test_error_of_the_call_is_raised_and_ends_the_measurement(steps: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError):
        trace(lambda: 1 // 0, counts=is_tiny)
    assert sys.getprofile() is None


def test_devkit_and_others_are_no_product() -> None:
    assert is_product(str(PRODUCT / "vault.py"))
    assert not is_product(str(PRODUCT / "devkit" / "demo.py"))
    assert not is_product(str(PRODUCT.parent / "bench" / "trace.py"))
