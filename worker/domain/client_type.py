"""The type of client that a grant belongs to. It decides how a refresh token is spent."""

import enum

from worker.domain.codes import BY_NUMBER, Verdict


class ClientType(enum.StrEnum):
    """RFC 6749 2.1, with Microsoft's third type. Nothing in a grant shows it, so it is learnt from refusals."""

    CONFIDENTIAL = "confidential"  #: with the registration's credential
    PUBLIC = "public"  #: without one: a grant of a device code, or of a native app
    SPA = "spa"  #: without one and with an Origin: a grant of a redirect URI of the type single page app


def required_type(code: str) -> ClientType | None:
    """The type that a refusal with this code asks for; None if it says nothing of types."""
    row = BY_NUMBER.get(code)
    if row is None:
        return None
    if row.verdict is Verdict.PUBLIC_CLIENT:
        return ClientType.PUBLIC
    if "spa" in row.flags:
        return ClientType.SPA
    return ClientType.CONFIDENTIAL if "confidential" in row.flags else None
