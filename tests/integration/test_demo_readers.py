"""The demo's readers: the verdict contains their failures."""

from tests.waiting import wait_for
from worker.bootstrap import Services
from worker.devkit.demo import Readers
from worker.devkit.emulator import Emulator


def test_an_unexpected_failure_of_a_reader_is_in_the_verdict(services: Services, emulator: Emulator) -> None:
    """Otherwise the verdict would be good although no reader is left."""
    readers = Readers(services.tokens, emulator, [None])  # type: ignore[list-item]  # imitates a bug
    readers.start()
    wait_for(lambda: len(readers.errors) >= 10, about="the reader to go on")
    readers.stop()

    assert all("AttributeError" in error for error in readers.errors)
