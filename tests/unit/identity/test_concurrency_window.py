"""The number of requests that may be in flight at once."""

from tests.factories import make_refreshed
from worker.domain.outcome import Misconfigured, Outcome, ReauthRequired, Scope, Throttled, Transient
from worker.identity.client import ConcurrencyWindow

GOOD: Outcome = make_refreshed()
DEAD: Outcome = ReauthRequired(code="AADSTS50173")
APP: Outcome = Misconfigured(code="AADSTS7000215")
TENANT: Outcome = Throttled(code="AADSTS90009", scope=Scope.TENANT)
NETWORK: Outcome = Transient(code="timeout", scope=Scope.NETWORK)


def test_it_grows_while_requests_succeed() -> None:
    """It doubles with each group, up to the number of connections."""
    window = ConcurrencyWindow(100)
    sizes = [window.size]
    for _ in range(4):
        window.adjust([GOOD, DEAD])
        sizes.append(window.size)

    assert sizes == [16, 32, 64, 100, 100]


def test_it_is_reset_by_an_outcome_about_the_registration() -> None:
    """If the app, the platform or the network is at fault, further requests would fail as well."""
    for trouble in (APP, NETWORK):
        window = ConcurrencyWindow(100)
        window.adjust([GOOD])
        window.adjust([GOOD, trouble])

        assert window.size == 16


def test_a_request_that_cannot_be_built_says_nothing_about_the_others() -> None:
    """A small limit does not grow."""
    window = ConcurrencyWindow(3)
    window.adjust([Transient(code="internal_error")])

    assert window.size == 3


def test_it_allows_refills_at_its_full_size_after_outcomes_about_their_own_account_only() -> None:
    """Otherwise, also after an outcome about a tenant, the caller sees each group before further requests start."""
    window = ConcurrencyWindow(40)
    refills = [window.allows_refill]
    for outcome in (GOOD, DEAD, TENANT, GOOD, NETWORK):
        window.adjust([outcome])
        refills.append(window.allows_refill)

    assert refills == [False, False, True, False, True, False]
