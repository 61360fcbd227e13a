"""Meaning of the codes in Microsoft's answers: the table ``codes.csv``, from which docs/error-codes.md is written."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from worker.domain.outcome import Scope
from worker.domain.table import read_table


class Verdict(enum.StrEnum):
    """Meaning of a code, before the details of the answer are added."""

    REAUTH = "sign in"  #: the grant is of no use any more; only its user can give another
    UNPROVEN = "sign in, if it lasts"  #: looks like that; three such answers over ten minutes prove it
    BLOCKED = "blocked"  #: an administrator, a policy or Microsoft refuses this account
    MISCONFIGURED = "misconfigured"
    PUBLIC_CLIENT = "without credential"  #: the grant belongs to a public client, which must not send a credential
    SCOPES_REFUSED = "scopes refused"  #: misconfigured is the app registration, or the account that has its own
    AUTHORITY_REFUSED = "authority refused"  #: likewise
    THROTTLED = "throttled"
    TRANSIENT = "try again"
    TRANSIENT_LONG = "try again later"  #: in half an hour, not in seconds


#: ``credential``: another credential of the same app registration may fare better.
#: ``abandoned``: the tenant is gone, or its administrator has removed or disabled the app or its rights.
#: ``aged out``: a grant that ended at a fixed age, set by policy or by the type of the redirect URI.
#: ``general``: says less than any other code in the same answer.
#: ``spa``: the grant belongs to a single page app. ``confidential``: the request lacked a credential, or had an Origin.
Flag: TypeAlias = Literal["credential", "abandoned", "aged out", "general", "spa", "confidential"]


class CodeRow(NamedTuple):
    """Meaning of one code.

    ``kind`` is ``number`` for an AADSTS number, ``error`` for an OAuth error name, ``worker`` for the worker's own.
    ``code`` is spelled as it stands in the ledger. ``name`` is Microsoft's, or empty. ``scope`` is never CLIENT where
    only work accounts or only personal accounts are refused, because the app registration goes on for the others.
    ``advice`` is a key of advice.SENTENCES, ``hint`` one sentence for the operator, ``source`` the name of a collection
    (see docs/error-codes.md) or a GitHub thread.
    """

    kind: str
    code: str
    name: str
    verdict: Verdict
    scope: Scope
    advice: str
    flags: frozenset[str]
    hint: str
    source: str


_LOOK_UP = "The worker does not know this code; look it up at https://login.microsoftonline.com/error and report it."
_BY_STATUS = ("http_", "discovery_http_")


def _row(cells: Mapping[str, str]) -> CodeRow:
    return CodeRow(
        kind=cells["kind"],
        code=cells["code"],
        name=cells["name"],
        verdict=Verdict(cells["verdict"]),
        scope=Scope(cells["scope"]),
        advice=cells["advice"],
        flags=frozenset(filter(None, cells["flags"].split("; "))),
        hint=cells["hint"],
        source=cells["source"],
    )


#: The whole table, in the order of its file: by kind, then by number or name.
ROWS = tuple(map(_row, read_table("codes.csv")))

_ALL = {row.code: row for row in ROWS}

#: Microsoft's numbers, spelled as ``AADSTS50173``. Microsoft warns that they may change.
BY_NUMBER: Mapping[str, CodeRow] = MappingProxyType({row.code: row for row in ROWS if row.kind == "number"})

#: OAuth 2.0 and OpenID Connect error names, for answers without a listed number.
BY_ERROR: Mapping[str, CodeRow] = MappingProxyType({row.code: row for row in ROWS if row.kind == "error"})


def explain(code: str) -> CodeRow | None:
    """The row of a code as the ledger has it; None for one that is not listed, and should be."""
    row = _ALL.get(code)
    if row is None and code.startswith(_BY_STATUS):
        return _ALL.get(f"{code[:-2]}xx")
    return row


def hint(code: str) -> str:
    """One sentence for the operator about a code as the ledger has it."""
    row = explain(code)
    return row.hint if row else _LOOK_UP


def flagged(flag: Flag) -> frozenset[str]:
    """The codes that bear a flag, spelled as in the ledger."""
    return frozenset(row.code for row in ROWS if flag in row.flags)
