"""One row of the table of codes, and how rows are written down."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from worker.domain.scope import Scope


class Verdict(enum.StrEnum):
    """What a code says, before the details of the answer are added."""

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
Flag: TypeAlias = Literal["credential", "abandoned", "aged out", "general"]

#: The source of a row that names no other: MicrosoftDocs/entra-docs, docs/identity-platform/reference-error-codes.md
PUBLISHED = "published list"


class CodeRow(NamedTuple):
    """What is known of one code: an AADSTS number, an OAuth error name, or a code of the worker's own.

    ``code`` is spelled as it stands in the ledger. ``name`` is Microsoft's, or empty. ``advice`` is a key of
    advice.SENTENCES, ``hint`` one sentence for the operator, ``source`` the name of a
    collection (see docs/error-codes.md) or a GitHub thread.
    """

    code: str
    name: str
    verdict: Verdict
    scope: Scope
    sign_in_helps: bool
    advice: str
    hint: str
    source: str
    flags: frozenset[Flag]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that differ in code, name, hint and source only.

    ``text`` has a row a line: ``code name: hint``, and perhaps `` @source`` after it. ``-`` stands for no name.
    """

    verdict: Verdict
    scope: Scope
    advice: str
    text: str
    sign_in_helps: bool = False
    flags: tuple[Flag, ...] = ()
    source: str = PUBLISHED

    def rows(self) -> Iterator[CodeRow]:
        """Each line as a row. Raises ValueError for a line that is none."""
        flags = frozenset(self.flags)
        for line in self.text.strip().splitlines():
            code, rest = line.split(maxsplit=1)
            name, rest = rest.split(": ", 1)
            hint, _, source = rest.partition(" @")
            yield CodeRow(
                code=f"AADSTS{code}" if code.isdecimal() else code,
                name="" if name == "-" else name,
                verdict=self.verdict,
                scope=self.scope,
                sign_in_helps=self.sign_in_helps,
                advice=self.advice,
                hint=hint,
                source=source or self.source,
                flags=flags,
            )
