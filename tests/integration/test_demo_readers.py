"""The demo's readers: what goes wrong with one of them is in the verdict."""

from tests.waiting import wait_for
from worker.bootstrap import Services
from worker.devkit.demo import Readers
from worker.devkit.emulator import Emulator


def test_a_reader_that_fails_in_an_unexpected_way_is_no_silence(services: Services, emulator: Emulator) -> None:
    """Or the verdict would be good, with nobody left to read."""
    readers = Readers(services.tokens, emulator, [None])  # type: ignore[list-item]  # a bug, as there might be one
    readers.start()
    wait_for(lambda: len(readers.errors) >= 10, about="each of them to go on")
    readers.stop()

    assert all("AttributeError" in error for error in readers.errors)
