"""The meaning of mail servers' answers: one table of rules, the first that fits counts, and each names its source.

Response codes in brackets are those of RFC 5530 (IMAP), RFC 2449 and 3206 (POP), numbers those of RFC 4954 (SMTP).
"""

import enum
import re
from dataclasses import dataclass
from datetime import timedelta

_BACKOFF = re.compile(r"suggested backoff time: (\d{1,9}) milliseconds", re.IGNORECASE)


class MailProtocol(enum.StrEnum):
    """The protocol of the server."""

    IMAP = "imap"
    POP = "pop"
    SMTP = "smtp"
    GRAPH = "graph"


class Phase(enum.Enum):
    """How far the login was when the server answered; only between token and acceptance does it judge a token."""

    UNSENT = enum.auto()
    SENT = enum.auto()
    ACCEPTED = enum.auto()


class Verdict(enum.Enum):
    """The consequence of an answer."""

    REJECTED = enum.auto()  #: the token: a newer one may be taken
    MAILBOX = enum.auto()  #: the mailbox: no token opens it
    NOT_CONNECTED = enum.auto()  #: the mailbox, and it passes most of the time
    UNAVAILABLE = enum.auto()  #: the server or the dialogue; it may pass


@dataclass(frozen=True, slots=True)
class Rule:
    """Answers of ``protocols`` that match ``pattern``, which is searched in status and words, have this verdict."""

    verdict: Verdict
    pattern: re.Pattern[str]
    source: str
    protocols: frozenset[MailProtocol]


def _rule(verdict: Verdict, pattern: str, source: str, *protocols: MailProtocol) -> Rule:
    return Rule(verdict, re.compile(pattern, re.IGNORECASE), source, frozenset(protocols or MailProtocol))


_IMAP, _POP, _SMTP, _GRAPH = MailProtocol
_ANY = (_IMAP, _POP, _SMTP)

RULES = (
    _rule(
        Verdict.NOT_CONNECTED,
        r"authenticated but not connected",
        "jstedfast/MailKit#1494, davmail#261, thunderbird-android#9635, learn answers 1604898 (28 % of logins)",
        *_ANY,
    ),
    _rule(Verdict.REJECTED, r"\[(AUTHENTICATIONFAILED|EXPIRED|AUTH)\]", "RFC 5530, RFC 3206", _IMAP, _POP),
    _rule(
        Verdict.MAILBOX,
        r"\[(AUTHORIZATIONFAILED|CONTACTADMIN|PRIVACYREQUIRED|NOPERM|CANNOT|SYS/PERM)\]",
        "RFC 5530, RFC 3206",
        _IMAP,
        _POP,
    ),
    _rule(
        Verdict.UNAVAILABLE,
        r"\[(UNAVAILABLE|LIMIT|INUSE|IN-USE|SERVERBUG|OVERQUOTA|CORRUPTION|CLIENTBUG|LOGIN-DELAY|SYS/TEMP)\]",
        "RFC 5530, RFC 2449, RFC 3206",
        _IMAP,
        _POP,
    ),
    _rule(Verdict.UNAVAILABLE, r"^BYE\b", "RFC 3501 section 7.1.5; aioimaplib#83, MailKit#849", _IMAP),
    _rule(
        Verdict.REJECTED,
        r"\b5\.5\.127\b|token will expire|AccessTokenExpired|token (is |has )?(expired|invalid)",
        "tarickb/sasl-xoauth2#98 (smtp-hve.office365.com), aioimaplib#83",
        *_ANY,
    ),
    _rule(
        Verdict.MAILBOX,
        r"\b5\.7\.139\b|\b5\.5\.124\b",
        "email-oauth2-proxy#193, OfficeDocs-Exchange#2075 (tenant, mailbox or policy); sasl-xoauth2#110 (wrong user)",
        _SMTP,
    ),
    _rule(
        Verdict.UNAVAILABLE,
        r"throttled|backoff|too many|server (is )?(unavailable|busy)|temporar|try (again|later)|retry later"
        r"|(limit|maximum)\b.*\bexceeded|maximum number",
        "imapsync#272, parsedmarc#179, twenty#20273, node-imap#561, node-imap#523; Dovecot",
        *_ANY,
    ),
    _rule(
        Verdict.UNAVAILABLE,
        r"(mailbox|maildrop) (is )?(already |currently )?(locked|in use)|(cannot|unable to|can't) lock",
        "RFC 1939 section 4: another session has it",
        _POP,
    ),
    _rule(Verdict.UNAVAILABLE, r"^4\d\d\b", "RFC 5321 section 4.2.1; MailKit#566 (PRX4), fastapi-mail#75", _SMTP),
    _rule(
        Verdict.MAILBOX,
        r"(is|been|are) (disabled|blocked|locked|suspended)|(not|isn't) (enabled|allowed|permitted)"
        r"|web ?browser|web login",
        "uxc#445, email-oauth2-proxy#193; Gmail",
        *_ANY,
    ),
    _rule(
        Verdict.MAILBOX,
        r"(mechanism|method|authentication type)\b.*\b(not|un)|(un\w+|invalid) (\w+ )?(mechanism|authentication type)"
        r"|(unknown|unrecognized|unsupported) command|command (is )?unknown|not (supported|implemented|recognized)",
        "chatwoot#8065; RFC 4954 section 4",
        *_ANY,
    ),
    _rule(
        Verdict.UNAVAILABLE,
        r"protocol error|(invalid|wrong|this) state|argument error|syntax error|invalid (base64|argument)|cannot decode"
        r"|bad sequence|(line|command) (is )?too long|must issue",
        "jstedfast/MailKit#1948, getmail6#256, email-oauth2-proxy#192, thunderbird-android#3573",
        *_ANY,
    ),
    _rule(
        Verdict.UNAVAILABLE,
        r"(system|server|backend|service|lookup|internal( \w+)?) (error|fail)|timed? ?out|overload|quota|shutting down"
        r"|maintenance|service (is )?(not|un)|not (available|active)|connection (is |was )?(closed|lost|reset|refused)"
        r"|out of (memory|resources)",
        "lefcha/imapfilter#22, MailKit#1106, nodemailer#1613",
        *_ANY,
    ),
    _rule(Verdict.UNAVAILABLE, r"^BAD\b", "RFC 3501 section 7.1.3: not understood", _IMAP),
    _rule(Verdict.UNAVAILABLE, r"^(50[013]|53[08])\b|^(?![45]\d\d)", "RFC 5321 section 4.2.2, RFC 4954", _SMTP),
    _rule(
        Verdict.UNAVAILABLE,
        r"^(408|429|5\d\d)\b|ErrorMailboxMoveInProgress|ErrorMailboxStoreUnavailable|MailboxConcurrency",
        "learn.microsoft.com/graph/errors, /graph/throttling; twentyhq/twenty#11070",
        _GRAPH,
    ),
    # In doubt the token is to blame, because finding out costs one refresh and no more.
    _rule(Verdict.REJECTED, r"^(NO|-ERR|535|401)\b", "learn.microsoft.com, how-to-authenticate-...-by-using-oauth"),
    _rule(Verdict.MAILBOX, r"^[45]\d\d\b", "RFC 5321 section 4.2.1; msgraph-sdk-javascript#1756", _SMTP, _GRAPH),
    _rule(Verdict.UNAVAILABLE, r"", "what is left is no answer of the protocol"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a server said no: IMAP's NO, BAD or BYE, POP's -ERR, or a number, and its words, fit to be shown."""

    protocol: MailProtocol
    status: str
    words: str
    phase: Phase = Phase.SENT

    @property
    def verdict(self) -> Verdict:
        """The first rule that fits; a token is rejected only by a server that has seen one and not yet taken it."""
        text = f"{self.status} {self.words}"
        fitting = (rule.verdict for rule in RULES if self.protocol in rule.protocols and rule.pattern.search(text))
        verdict = next(fitting)
        if verdict is not Verdict.REJECTED or self.phase is Phase.SENT:
            return verdict
        return Verdict.MAILBOX if self.phase is Phase.UNSENT else Verdict.UNAVAILABLE

    @property
    def retry_after(self) -> timedelta | None:
        """How long Exchange asks to be left alone."""
        found = _BACKOFF.search(self.words)
        return timedelta(milliseconds=int(found[1])) if found else None
