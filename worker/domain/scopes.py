"""Scopes of OAuth 2.0 as Microsoft reads them: each belongs to one resource, and a token is for one resource."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

OPENID_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})  # they belong to no resource

_GRAPH = "https://graph.microsoft.com"
_OUTLOOK = "https://outlook.office.com"

# One resource may have several names: the id of its application, and the addresses that Microsoft has given it.
# Sources: learn.microsoft.com "Verify first-party Microsoft applications in sign-in reports"; for the two addresses of
# Outlook, AzureAD/microsoft-authentication-library-for-objc#1647.
_SAME: Mapping[str, str] = MappingProxyType(
    {
        "00000003-0000-0000-c000-000000000000": _GRAPH,
        "00000002-0000-0ff1-ce00-000000000000": _OUTLOOK,
        "https://outlook.office365.com": _OUTLOOK,
    }
)

_GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SHOWABLE = re.compile(rf"[a-z][a-z0-9+.-]*://[a-z0-9._~:/-]{{1,200}}|{_GUID}")  # no token looks like this


def resources(scopes: Iterable[str]) -> list[str]:
    """The resources of these scopes, each once, in the order of the scopes.

    >>> resources(["openid", "Mail.Read", "https://graph.microsoft.com/User.Read", "api://an-app/read"])
    ['https://graph.microsoft.com', 'api://an-app']
    """
    return list(dict.fromkeys(_resource(scope) for scope in scopes if scope not in OPENID_SCOPES))


def shown(resource: str) -> str:
    """The resource for an error message. Text that may be a misplaced token is not repeated."""
    return resource if _SHOWABLE.fullmatch(resource) else "an unknown resource"


def _resource(scope: str) -> str:
    """A scope without a resource means Microsoft Graph. Case, slashes at the end, and an application id in the place of
    an address make no other resource."""
    scheme, separator, rest = scope.lower().rpartition("://")
    name, slash, _ = rest.rpartition("/")
    if not separator and not slash:
        return _GRAPH
    resource = f"{scheme}{separator}{name if slash else rest}".rstrip("/")
    return _SAME.get(resource, resource)
