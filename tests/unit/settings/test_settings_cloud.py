"""WORKER_CLOUD sets authority, scopes and mail hosts together, and parts of different clouds stop the start."""

import pytest

from tests.unit.settings.environment import FABRIKAM, Environment, complaint, put
from worker.domain.mail_hosts import MICROSOFT_MAIL_HOSTS
from worker.settings import Settings, load


@pytest.mark.parametrize(
    ("cloud", "host", "outlook"),
    [
        ("us-gov", "login.microsoftonline.us", "outlook.office365.us"),
        ("us-dod", "login.microsoftonline.us", "outlook-dod.office365.us"),
        ("china", "login.partner.microsoftonline.cn", "partner.outlook.cn"),
    ],
)
def test_a_cloud_sets_all_of_its_parts(environment: Environment, cloud: str, host: str, outlook: str) -> None:
    put(environment, FABRIKAM | {"WORKER_CLOUD": cloud, "WORKER_CLIENTS__FABRIKAM__CLOUD": "china"})

    ours, theirs = load(Settings).registrations

    assert ours.authority == f"https://{host}/common"
    assert ours.scopes == (f"https://{outlook}/IMAP.AccessAsUser.All", f"https://{outlook}/SMTP.Send")
    assert ours.mail.imap_host == ours.mail.pop_host == outlook
    assert {ours.mail.imap_host, ours.mail.smtp_host} <= MICROSOFT_MAIL_HOSTS
    assert theirs.mail.imap_host == "partner.outlook.cn"


def test_a_tenant_and_other_scopes_of_the_cloud_may_be_named(environment: Environment) -> None:
    scope = "https://graph.microsoft.us/Mail.Read"
    put(environment, {"WORKER_CLOUD": "us-gov", "WORKER_SCOPES": scope})
    environment.setenv("WORKER_AUTHORITY", "https://login.microsoftonline.us/contoso.us")

    [ours] = load(Settings).registrations

    assert (ours.authority, ours.scopes) == ("https://login.microsoftonline.us/contoso.us", (scope,))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"WORKER_CLOUD": "mars"}, "WORKER_CLOUD"),
        (
            {"WORKER_CLOUD": "china", "WORKER_AUTHORITY": "https://login.microsoftonline.us/common"},
            "WORKER_AUTHORITY is not of CLOUD china, whose host is login.partner.microsoftonline.cn",
        ),
        ({"WORKER_CLOUD": "china", "WORKER_OIDC_AUTHORITY": "https://id.example/x"}, "WORKER_CLOUD and OIDC_AUTHORITY"),
        (
            {"WORKER_AUTHORITY": "https://login.microsoftonline.us/common"},
            "WORKER_AUTHORITY is of a national cloud, and the scopes are not: set CLOUD to us-gov or us-dod",
        ),
    ],
)
def test_parts_of_different_clouds_stop_the_start(
    environment: Environment, values: dict[str, str], expected: str
) -> None:
    """They would be found out only by the first refresh, or never."""
    put(environment, values)

    assert expected in complaint()
