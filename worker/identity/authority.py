"""The form of an authority: a host and a tenant, without anything that two programs may read differently."""

import re

# Libraries resolve dot segments, decode escapes and drop empty segments, each at another time. With these characters
# alone the path means the same to MSAL, libcurl, proxies and the server.
_SEGMENT = r"/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+"
_AUTHORITY = re.compile(rf"(https://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?)((?:{_SEGMENT})*)/?")

#: A part of a sentence that explains a refusal.
AUTHORITY_FORM = "letters, digits and . _ ~ - between single slashes, and no user name, '.', '..', '%', '?' or '#'"


def split_authority(url: str) -> tuple[str, str] | None:
    """The server (scheme, host and port) and the path of an authority; None for anything else."""
    match = _AUTHORITY.fullmatch(url)
    return (match[1], match[2]) if match else None
