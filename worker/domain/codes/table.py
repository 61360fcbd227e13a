"""The table of codes: what an AADSTS number, an error name or a code of the worker's own means, and to whom."""

from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType

from worker.domain.codes import applications, grants, names, policies, service
from worker.domain.codes.row import CodeRow, Flag, Group

_LOOK_UP = "The worker does not know this code; look it up at https://login.microsoftonline.com/error and report it."
_BY_STATUS = ("http_", "discovery_http_")


def _table(groups: Iterable[Group]) -> Mapping[str, CodeRow]:
    return MappingProxyType({row.code: row for group in groups for row in group.rows()})


#: Microsoft's numbers, spelled as ``AADSTS50173``. Microsoft warns that they may change.
BY_NUMBER = _table(chain(grants.GROUPS, policies.GROUPS, applications.GROUPS, service.GROUPS))

#: OAuth 2.0 and OpenID Connect error names, for answers without a listed number.
BY_ERROR = _table(names.ERROR_NAMES)

_ALL: Mapping[str, CodeRow] = MappingProxyType({**_table(names.OWN), **BY_ERROR, **BY_NUMBER})


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
    return frozenset(row.code for row in _ALL.values() if flag in row.flags)
