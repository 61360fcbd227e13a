"""How many questions are under way at once."""

from tests.factories import make_refreshed
from worker.domain.outcome import Misconfigured, Outcome, ReauthRequired, Scope, Throttled, Transient
from worker.identity.pipeline import ConcurrencyWindow

GOOD: Outcome = make_refreshed()
DEAD: Outcome = ReauthRequired(code="AADSTS50173")
OURS: Outcome = Misconfigured(code="AADSTS7000215")
TENANT: Outcome = Throttled(code="AADSTS90009", scope=Scope.TENANT)
AWAY: Outcome = Transient(code="timeout", scope=Scope.NETWORK)


def test_it_grows_while_all_goes_well() -> None:
    """Twice as many with each group, up to the connections there may be."""
    window = ConcurrencyWindow(100)
    sizes = [window.size]
    for _ in range(4):
        window.adjust([GOOD, DEAD])
        sizes.append(window.size)

    assert sizes == [16, 32, 64, 100, 100]


def test_trouble_makes_it_careful_again() -> None:
    """What speaks against the app, the platform or the way there speaks against asking many more."""
    for trouble in (OURS, AWAY):
        window = ConcurrencyWindow(100)
        window.adjust([GOOD])
        window.adjust([GOOD, trouble])

        assert window.size == 16


def test_an_account_that_cannot_be_asked_says_nothing_about_the_others() -> None:
    """Nor does a small limit grow."""
    window = ConcurrencyWindow(3)
    window.adjust([ValueError("a scope")])

    assert window.size == 3


def test_questions_flow_only_once_it_is_wide_open_and_nothing_speaks_against_it() -> None:
    """Until then, and after what concerns a whole tenant, each group is looked at before anybody else is asked."""
    window = ConcurrencyWindow(40)
    trust = [window.allows_refill]
    for outcome in (GOOD, DEAD, TENANT, GOOD, AWAY):
        window.adjust([outcome])
        trust.append(window.allows_refill)

    assert trust == [False, False, True, False, True, False]
