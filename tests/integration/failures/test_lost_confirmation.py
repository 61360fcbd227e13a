"""Postgres commits a result, and the connection breaks before the worker has the confirmation."""

from tests.constants import ANN
from tests.integration.installation import Installation
from tests.integration.lossy_proxy import LossyProxy
from tests.integration.side_effects import GrantWith


def test_a_commit_whose_confirmation_is_lost_counts_as_written(installation: Installation) -> None:
    """The repeated write finds a newer version, which is its own. The token is published, and the event stands once."""
    installation.sign_in(ANN, due=True, strict=True)
    with LossyProxy(str(installation.settings.database_url.get_secret_value())) as proxy:
        worker = installation.another_process(database_url=proxy.url)
        installation.emulator.add_fault(GrantWith(meanwhile=proxy.lose_next_confirmation), times=1)

        assert worker.refresher.refresh_due() == {"leased": 1, "refreshed": 1}
        assert proxy.lost == 1

        token = installation.services.tokens.get(ANN)
    assert token.version == installation.account().version
    assert installation.requests == 1
    assert installation.query("SELECT sum(cardinality(refreshes)) FROM refresh_successes") == [(1,)]
