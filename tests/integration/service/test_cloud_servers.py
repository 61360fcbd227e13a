"""Accounts of a national cloud that name no mail servers get those of their cloud."""

from dataclasses import replace

from tests.constants import ANN
from tests.integration.installation import Installation
from worker.domain.account import DEFAULT_CLIENT, MailServers, account_id
from worker.domain.clouds import CLOUDS
from worker.service.accounts.grant_sealer import GrantSealer
from worker.vault import Vault


def test_a_new_account_gets_the_mail_servers_of_its_cloud(installation: Installation) -> None:
    """Microsoft's other hosts do not take its tokens."""
    china = CLOUDS["china"].mail
    sealer = GrantSealer(
        vault=Vault(installation.settings.keys),
        policy=installation.settings.policy,
        servers={DEFAULT_CLIENT: china},
        utcnow=installation.clock,
    )
    grant, own = installation.grant(ANN), MailServers(imap_host="imap.example")

    assert sealer.seal(account_id(ANN), grant, None).mail == china
    assert sealer.seal(account_id(ANN), replace(grant, mail=own), None).mail == own
