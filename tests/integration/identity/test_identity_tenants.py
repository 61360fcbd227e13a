"""A batch may have more tenants than the number of apps that are kept. Metadata are fetched once, before any request.

One thread drives all connections. While it fetches metadata in between, no response is read.
"""

from collections.abc import Sequence

from tests.integration.identity.identities import refresh_all, token_request
from tests.integration.identity.scripted_server import ScriptedServer
from worker.domain.outcome import Refreshed
from worker.identity import Identity

_KEPT = 256


def _refresh_tenants(scripted: ScriptedServer, identity: Identity, tenants: Sequence[int]) -> list[str]:
    """Send one request in each tenant. The result is the methods of the requests that the server received, in order."""
    before = len(scripted.requests)
    authorities = [f"{scripted.base_url}/tenant{number}.com" for number in tenants]
    outcomes = refresh_all(
        identity,
        [token_request(authority=authority) for authority in authorities],
        expected=[("default", authority) for authority in authorities],
    )
    assert all(isinstance(outcome, Refreshed) for outcome in outcomes)
    return [request.method for request in scripted.requests[before:]]


def test_a_batch_of_very_many_tenants_fetches_all_metadata_first(scripted: ScriptedServer, identity: Identity) -> None:
    """They are kept for the next batch of the same size."""
    tenants = range(_KEPT + 10)

    assert _refresh_tenants(scripted, identity, tenants) == ["GET"] * len(tenants) + ["POST"] * len(tenants)
    assert _refresh_tenants(scripted, identity, tenants) == ["POST"] * len(tenants)


def test_a_batch_does_not_evict_metadata_that_it_needs(scripted: ScriptedServer, identity: Identity) -> None:
    """The least recently used are evicted, unless they are about to be used."""
    _refresh_tenants(scripted, identity, range(_KEPT))

    assert _refresh_tenants(scripted, identity, [0, _KEPT]) == ["GET", "POST", "POST"]
    assert _refresh_tenants(scripted, identity, [1]) == ["GET", "POST"]
