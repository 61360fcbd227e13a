"""What to tell the user of a mailbox that cannot be read: one sentence per cause. Data; the words may change.

A user of a personal account (outlook.com and its like) has no administrator and no organization; where a sentence names
one, PERSONAL has another.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from worker.domain.codes import Verdict, explain

#: The sentences by key; the rows of codes/ name the keys.
SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "sign_in": "Please sign in again.",
        "sign_in_or_wait": "Please sign in again; if that does not help, this application has a problem of its own.",
        "password": "Your password has changed or expired; please sign in again.",
        "proof": "Microsoft asks for a second proof of who you are; please sign in again and complete it.",
        "expired": "Your sign-in has expired; please sign in again.",
        "day": "Your sign-in lasts for a day only; please sign in again.",
        "unlock": "Please sign in again; if Microsoft says that your account is locked, unlock it there first.",
        "consent": "Please sign in again and allow access to your mailbox.",
        "age": "Microsoft asks for your age or a parent's consent; please sign in again and follow its steps.",
        "device": "Your organization accepts known devices only; please sign in again from one of them.",
        "identity": "Your organization wants to be sure that it is you; please sign in again and follow its steps.",
        "admin_consent": "Your administrator must allow this application first; please ask them to grant consent.",
        "policy": "Your organization's policy does not allow this access; please ask your administrator.",
        "assignment": "You have not been assigned to this application; please ask your administrator.",
        "denied": "Microsoft does not allow this access; please ask your administrator.",
        "disabled": "Your account is disabled; please ask your administrator.",
        "unknown_account": "Your account is not known in this organization; please ask your administrator.",
        "other_account": "This application does not take your kind of account; please sign in with another one.",
        "unknown_application": "Microsoft does not know this application in your organization; please ask your"
        " administrator.",
        "unknown_organization": "Microsoft does not know your organization; please ask your administrator.",
        "missing_service": "Your organization does not have the service that your mailbox needs; please ask your"
        " administrator.",
        "locked": "Microsoft has locked your account for a while after failed sign-ins; it is tried again by itself.",
        "wait": "Microsoft cannot be asked at the moment; it is tried again by itself.",
        "application": "This application has a problem of its own; there is nothing you need to do.",
        "not_connected": "This mailbox is not connected; please sign in to connect it.",
        "inactive": "This mailbox is not being read at present.",
        "blocked": "Your organization does not allow this access; please ask your administrator.",
        "token_refused": "Your mailbox refuses the sign-in; please ask your administrator whether it exists, may be"
        " reached with IMAP, POP or SMTP, and is yours.",
        "mailbox_refused": "Your mailbox is closed to this application; please ask your administrator whether IMAP, POP"
        " and SMTP are switched on for it.",
        "unread": "Your mailbox cannot be read at the moment.",
    }
)

_AT_MICROSOFT = (
    "Microsoft does not allow this access; please sign in to your account in a browser and follow its steps."
)

#: The same for users of personal accounts.
PERSONAL: Mapping[str, str] = MappingProxyType(
    {
        "device": SENTENCES["proof"],
        "identity": "Microsoft wants to be sure that it is you; please sign in again and follow its steps.",
        "admin_consent": SENTENCES["consent"],
        "policy": _AT_MICROSOFT,
        "assignment": SENTENCES["other_account"],
        "denied": _AT_MICROSOFT,
        "disabled": "Your account is disabled; please sign in to it in a browser and follow Microsoft's steps.",
        "unknown_account": SENTENCES["other_account"],
        "unknown_application": SENTENCES["other_account"],
        "unknown_organization": SENTENCES["application"],
        "missing_service": SENTENCES["other_account"],
        "blocked": _AT_MICROSOFT,
        "token_refused": "Your mailbox refuses the sign-in; please check in its settings that other apps may use IMAP,"
        " POP or SMTP, and that it is yours.",
        "mailbox_refused": "Your mailbox is closed to this application; please let other apps use IMAP, POP and SMTP in"
        " its settings.",
    }
)

_OURS = "client_misconfigured"  # or not yet known to be the tenant's
_PASSES = "backing_off"  # whatever the reason may become, the worker still tries by itself

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
