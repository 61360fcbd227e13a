"""What to tell the user of a mailbox that cannot be read: one sentence per code. Data; the words may change.

Sources: learn.microsoft.com "Microsoft Entra authentication and authorization error codes"; the grouping is that of
microsoft.py.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType


def _table(rows: Iterable[tuple[str, tuple[int, ...]]]) -> Mapping[str, str]:
    return MappingProxyType({f"AADSTS{code}": sentence for sentence, codes in rows for code in codes})


#: By Microsoft's code, as far as a user can do something about it.
BY_REASON: Mapping[str, str] = MappingProxyType(
    {
        **_table(
            [
                (
                    "Your password has changed or expired; please sign in again.",
                    (50055, 50144, 50132, 50133, 50135, 50173),
                ),
                (
                    "Your organization asks for a second proof of who you are; please sign in again and complete it.",
                    (50076, 50079, 50074, 50072, 50078, 50158),
                ),
                ("Your sign-in has expired; please sign in again.", (700082, 70008, 70043, 50089, 50085)),
                ("Your sign-in lasts for a day only; please sign in again.", (700084,)),
                ("Please sign in again and allow access to your mailbox.", (65001, 65004)),
                (
                    "Your organization accepts known devices only; please sign in again from one of them.",
                    (50097, 50129, 50131, 53000, 53001, 53002, 700003),
                ),
                (
                    "Your organization wants to be sure that it is you; please sign in again and follow its steps.",
                    (53004, 53010, 53011),
                ),
                (
                    "Your administrator must allow this application first; please ask them to grant consent.",
                    (90094, 90095),
                ),
                (
                    "Your organization's policy does not allow this access; please ask your administrator.",
                    (53003, 530032, 530035),
                ),
                (
                    "You have not been assigned to this application; please ask your administrator.",
                    (50105,),
                ),
                (
                    "Microsoft does not know this application in your organization; please ask your administrator.",
                    (700016, 700011, 7000112, 7000229, 1000031),
                ),
                ("Microsoft does not know your organization; please ask your administrator.", (90002,)),
                ("Your account is disabled; please ask your administrator.", (50057,)),
                (
                    "Your account is not known in this organization; please ask your administrator.",
                    (50034, 51004, 50020, 50014, 16000, 16003),
                ),
                (
                    "Microsoft has locked your account for a while after failed sign-ins; it is tried again by itself.",
                    (50053,),
                ),
            ]
        ),
        "consent_required": "Please sign in again and allow access to your mailbox.",
    }
)

_OURS = "client_misconfigured"  # or not yet known to be the tenant's

#: By the error's own code, where the reason says nothing more.
BY_CODE: Mapping[str, str] = MappingProxyType(
    {
        "unknown_account": "This mailbox is not connected; please sign in to connect it.",
        "inactive": "This mailbox is not being read at present.",
        "needs_user": "Please sign in again.",
        "blocked_by_admin": "Your organization does not allow this access; please ask your administrator.",
        "token_refused": "Your mailbox refuses the sign-in; please ask your administrator whether it exists, may be"
        " reached with IMAP, POP or SMTP, and is yours.",
        "mailbox_refused": "Your mailbox is closed to this application; please ask your administrator whether IMAP, POP"
        " and SMTP are switched on for it.",
        "backing_off": "Microsoft cannot be asked at the moment; it is tried again by itself.",
        _OURS: "This application has a problem of its own; there is nothing you need to do.",
    }
)


def advice(code: str, reason: str = "") -> str:
    """The sentence for an AccountError's ``code`` and Microsoft's ``reason``, if it has one."""
    by_reason = None if code == _OURS else BY_REASON.get(reason)
    return by_reason or BY_CODE.get(code) or "Your mailbox cannot be read at the moment."
