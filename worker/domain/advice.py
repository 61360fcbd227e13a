"""Advice for the user of a mailbox that cannot be read: one sentence per cause, from advice.csv. The words may change.

A user of a personal account (outlook.com and its like) has no administrator and no organization; where a sentence names
one, the table has another for them.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from worker.domain.codes import Verdict, explain
from worker.domain.table import read_table

_ROWS = tuple(read_table("advice.csv"))

#: The sentences by key; the rows of codes.csv name the keys.
SENTENCES: Mapping[str, str] = MappingProxyType({row["key"]: row["work account"] for row in _ROWS})

#: The sentences for users of personal accounts, where they differ.
PERSONAL: Mapping[str, str] = MappingProxyType(
    {row["key"]: row["personal account"] for row in _ROWS if row["personal account"]}
)

_OURS = "client_misconfigured"  # or not yet known to be the tenant's
_PASSES = "backing_off"  # the worker still tries by itself, and the reason may change

#: The key by the error's own code, where the reason says nothing more.
BY_CODE: Mapping[str, str] = MappingProxyType(
    {
        "unknown_account": "not_connected",
        "inactive": "inactive",
        "needs_user": "sign_in",
        "blocked_by_admin": "blocked",
        "token_refused": "token_refused",
        "mailbox_refused": "mailbox_refused",
        _PASSES: "wait",
        _OURS: "application",
    }
)

# outlook.com, hotmail.co.uk, live.nl, outlook.com.br ...
_PERSONAL_DOMAIN = re.compile(r"(outlook|hotmail|live|msn|windowslive|passport)(\.com?)?\.[a-z]{2,3}")
_PASSING = {Verdict.THROTTLED, Verdict.TRANSIENT, Verdict.TRANSIENT_LONG}


def advice(code: str, reason: str = "", email: str = "") -> str:
    """The sentence for an AccountError's ``code`` and Microsoft's ``reason``, fit for the kind of account."""
    key = _key(code, reason)
    return (PERSONAL.get(key) if is_personal(email) else None) or SENTENCES[key]


def is_personal(email: str) -> bool:
    """Whether the address is of a domain that Microsoft gives to personal accounts only."""
    return _PERSONAL_DOMAIN.fullmatch(email.rpartition("@")[2].lower()) is not None


def _key(code: str, reason: str) -> str:
    row = None if code == _OURS else explain(reason)
    if row is None or (code == _PASSES and row.verdict not in _PASSING):
        return BY_CODE.get(code, "unread")
    return row.advice
