"""A token is for one resource. A scope says which, by the part before its last slash."""

import pytest

from worker.domain.errors import InvalidInput
from worker.domain.scopes import resources
from worker.identity.registration import check_scopes

IMAP = "https://outlook.office.com/IMAP.AccessAsUser.All"
GRAPH_ID = "00000003-0000-0000-c000-000000000000"
OUTLOOK_ID = "00000002-0000-0ff1-ce00-000000000000"
GUID = "6f1a3c2e-0b5d-4a49-9d53-0c4f0a6e1b22"


@pytest.mark.parametrize(
    ("scopes", "resource"),
    [
        (IMAP, "https://outlook.office.com"),
        (f"{IMAP} https://outlook.office.com/SMTP.Send email", "https://outlook.office.com"),
        (f"{IMAP} HTTPS://Outlook.Office.COM/SMTP.Send", "https://outlook.office.com"),
        ("Mail.Read User.Read", "https://graph.microsoft.com"),
        ("Mail.Read https://graph.microsoft.com/User.Read", "https://graph.microsoft.com"),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com"),
        (
            "https://management.core.windows.net//.default https://management.core.windows.net/user_impersonation",
            "https://management.core.windows.net",
        ),
        ("https://analysis.windows.net/powerbi/api/Dataset.Read", "https://analysis.windows.net/powerbi/api"),
        (f"api://{GUID}/read api://{GUID}/write", f"api://{GUID}"),
        (f"{GUID}/.default {GUID.upper()}/read", GUID),
        (f"{GRAPH_ID}/Mail.Read User.Read https://graph.microsoft.com/.default", "https://graph.microsoft.com"),
        (f"{GRAPH_ID.upper()}//.default https://GRAPH.microsoft.com//Mail.Send", "https://graph.microsoft.com"),
        (f"{OUTLOOK_ID}/IMAP.AccessAsUser.All {IMAP}", "https://outlook.office.com"),
        (f"{IMAP} https://outlook.office365.com/SMTP.Send", "https://outlook.office.com"),
        (f"https://Outlook.Office365.com//.default {OUTLOOK_ID}/SMTP.Send", "https://outlook.office.com"),
        ("https://mail.google.com/", "https://mail.google.com"),
        ("https://mail.google.com", "https://mail.google.com"),
    ],
)
def test_scopes_of_one_resource_are_accepted(scopes: str, resource: str) -> None:
    """Case, slashes at the end, other names of a resource and OpenID's own scopes make no second resource."""
    assert resources(scopes.split()) == [resource]
    check_scopes(tuple(scopes.split()), oidc=False)


@pytest.mark.parametrize("scopes", ["", "email", "openid email profile offline_access"])
def test_the_scopes_of_openid_have_no_resource(scopes: str) -> None:
    assert resources(scopes.split()) == []


MIXED = [
    (f"{IMAP} https://graph.microsoft.com/Mail.Read", "https://outlook.office.com and https://graph.microsoft.com"),
    (f"Mail.Read {IMAP}", "https://graph.microsoft.com and https://outlook.office.com"),
    (f"{OUTLOOK_ID}/SMTP.Send {GRAPH_ID}/Mail.Send", "https://outlook.office.com and https://graph.microsoft.com"),
    (f"{IMAP} {GRAPH_ID}/Mail.Read", "https://outlook.office.com and https://graph.microsoft.com"),
    (f"{IMAP} https://outlook.office365.us/SMTP.Send", "https://outlook.office.com and https://outlook.office365.us"),
    (f"api://{GUID}/read {IMAP}", f"api://{GUID} and https://outlook.office.com"),
    (f"{GUID}/read api://{GUID}/read", f"{GUID} and api://{GUID}"),
    (f"{IMAP} Mail.Read api://x/y", "https://outlook.office.com and https://graph.microsoft.com"),
]


@pytest.mark.parametrize(("scopes", "both"), MIXED)
def test_scopes_of_two_resources_are_refused(scopes: str, both: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_scopes(tuple(scopes.split()), oidc=False)

    assert f"not of {both};" in str(refusal.value)


def test_to_another_issuer_a_scope_is_a_word() -> None:
    """Google's scopes are URLs of different hosts, and one token is for all of them."""
    check_scopes(("https://mail.google.com/", "https://www.googleapis.com/auth/calendar", "imap"), oidc=True)


def test_a_misplaced_token_is_not_repeated() -> None:
    """Tokens of personal accounts contain slashes."""
    token = "EwB4A8l6BAAUbDba3x2OMJElkF7gJ4z/hQ+q"

    with pytest.raises(InvalidInput) as refusal:
        check_scopes((IMAP, token), oidc=False)

    assert "not of https://outlook.office.com and an unknown resource;" in str(refusal.value)
    assert "ewb4" not in str(refusal.value).lower()
