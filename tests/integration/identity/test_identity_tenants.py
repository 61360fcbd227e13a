"""Batches that span more tenants than metadata are kept of: none is asked for twice, nor while questions are under way.

Whoever asks drives all connections himself: while he fetches metadata in the middle, nobody reads the answers.
"""

from collections.abc import Sequence

from tests.integration.identity.test_identity_pipeline import ask_all, question
from tests.integration.identity.verbatim import Verbatim
from worker.domain.outcome import Refreshed
from worker.identity import Identity

_KEPT = 256


def _ask_all(says: Verbatim, identity: Identity, tenants: Sequence[int]) -> list[str]:
    """One question in each tenant; what has been asked for it, in its order."""
    before = len(says.asked)
    authorities = [f"{says.base_url}/tenant{number}.com" for number in tenants]
    outcomes = ask_all(
        identity,
        [question(authority=authority) for authority in authorities],
        expected=[("default", authority) for authority in authorities],
    )
    assert all(isinstance(outcome, Refreshed) for outcome in outcomes)
    return [asked.method for asked in says.asked[before:]]


def test_a_batch_of_very_many_tenants_fetches_all_metadata_first(says: Verbatim, identity: Identity) -> None:
    """And keeps them for the next batch of the same size."""
    tenants = range(_KEPT + 10)

    assert _ask_all(says, identity, tenants) == ["GET"] * len(tenants) + ["POST"] * len(tenants)
    assert _ask_all(says, identity, tenants) == ["POST"] * len(tenants)


def test_metadata_that_a_batch_needs_do_not_make_room_for_others_of_it(says: Verbatim, identity: Identity) -> None:
    """Those that have not been used for the longest time go, but not if they are about to be."""
    _ask_all(says, identity, range(_KEPT))

    assert _ask_all(says, identity, [0, _KEPT]) == ["GET", "POST", "POST"]
    assert _ask_all(says, identity, [1]) == ["GET", "POST"]
