"""Public reports about mail servers, replayed over the wire through every door."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.integration.mail.doors import DOORS, IMAP, SMTP, Door, library, protocol, through_aio_imap, through_pop
from tests.integration.mail.script import Scripted, Scripts, cases, serving_script
from tests.integration.mail.sources import LOCAL, HeldSource
from worker.mail import LoginRejected, MailboxNotConnected, MailboxRefused, MailUnavailable

ANN = "ann@contoso.com"
GREETING = {
    "imap": "S: * OK The Microsoft Exchange IMAP4 service is ready. [UwBOADYAUABSADAA]",
    "pop": "S: +OK The Microsoft Exchange POP3 service is ready. [UwBOADYA]",
    "smtp": "S: 220 ZR2P278CA0019.outlook.office365.com Microsoft ESMTP MAIL Service ready",
}
CAPABILITY = ["C: CAPABILITY", "S+: * CAPABILITY IMAP4 IMAP4rev1 AUTH=XOAUTH2 IDLE|{tag} OK CAPABILITY completed."]
STARTTLS = ["C: EHLO", "S+: 250-smtp.contoso.com Hello|250 STARTTLS", "C: STARTTLS", "S: 220 2.0.0 SMTP server ready"]
EHLO = ["C: EHLO", "S+: 250-smtp.contoso.com Hello|250 AUTH LOGIN XOAUTH2"]
BEGIN = {
    "imap": [GREETING["imap"], *CAPABILITY, "C: AUTHENTICATE XOAUTH2"],
    "pop": [GREETING["pop"], "C: AUTH XOAUTH2"],
    "smtp": [GREETING["smtp"], *STARTTLS, "TLS", *EHLO, "C: AUTH XOAUTH2"],
}
PROMPT = {"imap": "S: + ", "pop": "S: + ", "smtp": "S: 334 "}
REJECTED = {
    "imap": "S: {tag} NO AUTHENTICATE failed.",
    "pop": "S: -ERR Authentication failure: unknown user name or bad password.",
    "smtp": "S: 535 5.7.3 Authentication unsuccessful",
}


@dataclass(slots=True)
class Played:
    """The course of a login."""

    seen: Scripted
    source: HeldSource
    seconds: float = 0.0
    raised: Exception | None = field(default=None)

    def is_over(self) -> bool:
        """Whether every connection was closed. It waits while one is open."""
        end = time.monotonic() + 30
        while self.seen.closed < self.seen.opened and time.monotonic() < end:
            time.sleep(0.01)
        return self.seen.closed == self.seen.opened


Play = Callable[..., Played]


@pytest.fixture(name="play")
def _play(script_tls: ssl.SSLContext, script_trust: ssl.SSLContext) -> Iterator[Play]:
    with ExitStack() as running:

        def play(door: Door, scripts: Scripts, *, timeout: float = 30, newest: int = 99) -> Played:
            seen = Scripted(scripts)
            servers = running.enter_context(serving_script(seen, script_tls, protocol(door)))
            played = Played(seen, HeldSource(servers, newest=newest))
            begun = time.monotonic()
            try:
                door(played.source, ANN, command="noop", ssl_context=script_trust, mail_hosts=LOCAL, timeout=timeout)
            except Exception as error:  # noqa: BLE001 - the test examines it
                played.raised = error
            played.seconds = time.monotonic() - begun
            return played

        yield play


def answered(door: Door, *steps: str) -> list[list[str]]:
    """A server that accepts the token and then follows the steps, at every connection."""
    spoken = protocol(door)
    return [[*BEGIN[spoken], PROMPT[spoken], "C*", *steps]]


# The exception, the numbers of reported tokens and of opened connections, and a part of the message.
Expected = tuple[type[Exception] | None, int, int, str]
EXPECTED: dict[str, Expected] = {
    "anc-once": (None, 0, 2, ""),
    "hve-expiring": (None, 1, 2, ""),
    "pop-protocol-error": (MailUnavailable, 0, 1, "Protocol error"),
    "refused-before-token": (MailboxRefused, 0, 1, ""),
    "challenge-token": (LoginRejected, 1, 2, "status 400, scope …"),
    "aio-bye": (MailUnavailable, 0, 1, "Session invalidated - AccessTokenExpired"),
    "aio-greeting-bye": (MailUnavailable, 0, 1, "Connection is closed. 13"),
    "bad-invalid-state": (MailUnavailable, 0, 1, "Command received in Invalid state."),
    "smtp-prx4": (MailUnavailable, 0, 1, "PRX4"),
}
GIVEN = [
    pytest.param(door, scripts, timeout, EXPECTED[case], id=f"{case}-{name}")
    for case, name, scripts, timeout in cases()
    for door in DOORS
    if name == library(door)
]


@pytest.mark.parametrize(("door", "scripts", "timeout", "expected"), GIVEN)
def test_a_public_case_ends_as_expected(
    play: Play, door: Door, scripts: Scripts, timeout: float, expected: Expected
) -> None:
    kind, reports, connections, words = expected
    played = play(door, scripts, timeout=timeout)
    assert type(played.raised) is (kind or type(None)), played.raised
    assert (len(played.source.reported), played.seen.opened) == (reports, connections)
    assert words in str(played.raised)
    assert "eyJ" not in repr(played.raised)
    assert played.seen.unexpected == []
    assert played.seconds < timeout
    assert played.is_over()


@pytest.mark.parametrize("door", IMAP)
def test_a_mailbox_that_stays_unconnected_may_still_pass(play: Play, door: Door) -> None:
    """Each attempt opens a new connection with the same token, after a longer pause."""
    unconnected = ["S: {tag} BAD User is authenticated but not connected.", "CLOSE"]
    played = play(door, answered(door, *unconnected))
    assert isinstance(played.raised, MailboxNotConnected)
    assert "this may pass" in str(played.raised)
    assert (played.source.reported, played.seen.opened) == ([], 3)
    assert len(set(played.seen.tokens)) == 1
    assert 4 <= played.seconds < 6


@pytest.mark.parametrize("door", IMAP)
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("NO System error (Failure)", MailUnavailable),
        ("NO [OVERQUOTA] no room", MailUnavailable),
        ("NO Server Busy. Please retry later.", MailUnavailable),
        ("BAD Command Argument Error. 11", MailUnavailable),
        ("NO [AUTHORIZATIONFAILED] no rights", MailboxRefused),
        ("NO IMAP access is disabled for this mailbox.", MailboxRefused),
    ],
)
def test_a_response_that_is_not_about_the_token_causes_no_refresh(
    play: Play, door: Door, words: str, kind: type[Exception]
) -> None:
    played = play(door, answered(door, "S: {tag} " + words, "SILENT"))
    assert type(played.raised) is kind
    assert words[4:] in str(played.raised)
    assert (played.source.reported, played.seen.opened) == ([], 1)


@pytest.mark.parametrize("door", SMTP)
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("501 5.5.124 Invalid XOAUTH2 auth data - user and token mismatch", MailboxRefused),
        ("504 5.7.4 Unrecognized authentication type", MailboxRefused),
        ("503 5.5.1 Bad sequence of commands", MailUnavailable),
        ("250 2.0.0 OK", MailUnavailable),
        ("what?", MailUnavailable),
    ],
)
def test_an_smtp_response_that_is_not_about_the_token_causes_no_refresh(
    play: Play, door: Door, words: str, kind: type[Exception]
) -> None:
    played = play(door, answered(door, "S: " + words, "SILENT"))
    assert type(played.raised) is kind
    assert (played.source.reported, played.seen.opened) == ([], 1)


@pytest.mark.parametrize("door", IMAP)
@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("{tag} NO AUTHENTICATE failed.|* BYE Connection closed. 14", LoginRejected),
        ("* BYE Connection closed. 14|{tag} NO AUTHENTICATE failed.", MailUnavailable),
        ("* NO [ALERT] slow down|* 3 EXISTS {5}|hello|{tag} NO AUTHENTICATE failed.", LoginRejected),
        ("{tag} PREAUTH what?", MailUnavailable),
        ("nonsense", MailUnavailable),
        ("X9 NO AUTHENTICATE failed.", MailUnavailable),
    ],
)
def test_the_first_line_about_the_login_counts(play: Play, door: Door, lines: str, kind: type[Exception]) -> None:
    played = play(door, answered(door, f"S+: {lines}", "CLOSE"))
    assert type(played.raised) is kind


@pytest.mark.parametrize("door", DOORS)
def test_a_login_that_is_rejected_before_the_token_causes_no_refresh(play: Play, door: Door) -> None:
    spoken = protocol(door)
    played = play(door, [[*BEGIN[spoken], REJECTED[spoken], "SILENT"]])
    assert isinstance(played.raised, MailboxRefused)
    assert (played.source.reported, played.seen.tokens) == ([], [])


@pytest.mark.parametrize("door", DOORS)
def test_the_servers_words_are_kept_if_no_newer_token_exists(play: Play, door: Door) -> None:
    """The source has no newer token, because the last one was rejected minutes ago."""
    played = play(door, answered(door, REJECTED[protocol(door)], "SILENT"), newest=1)
    assert isinstance(played.raised, LoginRejected)
    assert played.raised.said == REJECTED[protocol(door)].partition(" ")[2].removeprefix("{tag} NO ").removeprefix(
        "-ERR "
    ).removeprefix("535 ")
    assert played.raised.retry_after is not None


ENDS = {
    "close": ["CLOSE"],
    "reset": ["RST"],
    "bye": ["S: * BYE Connection closed. 14", "CLOSE"],
    "bye that lingers": ["S: * BYE Connection closed. 14", "SILENT"],
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stage", ["before the greeting", "after it", "after the token"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_server_that_hangs_up_is_noticed_at_once(play: Play, door: Door, stage: str, end: str) -> None:
    spoken = protocol(door)
    script = {
        "before the greeting": ENDS[end],
        "after it": [GREETING[spoken], "C*", *ENDS[end]],
        "after the token": [*answered(door)[0], *ENDS[end]],
    }[stage]
    played = play(door, [script])
    assert isinstance(played.raised, MailUnavailable)
    assert played.seconds < 2
    assert (played.source.reported, played.seen.opened) == ([], 1)
    assert played.is_over()


@pytest.mark.parametrize("door", IMAP)
@pytest.mark.parametrize("end", ["bye", "bye that lingers"])
@pytest.mark.parametrize("stage", ["as the greeting", "after the token", "after the login"])
def test_a_bye_ends_the_session_at_once(play: Play, door: Door, stage: str, end: str) -> None:
    if end == "bye that lingers" and door is not through_aio_imap and stage != "as the greeting":
        end = "bye"  # imaplib reads until the server hangs up
    accepted = [*answered(door)[0], "S: {tag} OK AUTHENTICATE completed.", *CAPABILITY * (door is through_aio_imap)]
    script = {
        "as the greeting": ENDS[end],
        "after the token": [*answered(door)[0], *ENDS[end]],
        "after the login": [*accepted, "C: LIST", *ENDS[end]],
    }[stage]
    played = play(door, [script])
    assert isinstance(played.raised, MailUnavailable)
    assert "Connection closed. 14" in str(played.raised)
    assert played.seconds < 2
    assert played.source.reported == []


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stage", ["TLS", "greeting", "after it", "after the token"])
def test_a_silent_server_runs_into_the_time_limit(play: Play, door: Door, stage: str) -> None:
    spoken = protocol(door)
    tls = [GREETING["smtp"], *STARTTLS, "SILENT"] if door in SMTP else ["NOTLS", "SILENT"]
    script = {
        "TLS": tls,
        "greeting": ["SILENT"],
        "after it": [GREETING[spoken], "SILENT"],
        "after the token": [*answered(door)[0], "SILENT"],
    }[stage]
    played = play(door, [script], timeout=1)
    assert isinstance(played.raised, MailUnavailable)
    assert "no complete answer within 1 seconds" in str(played.raised)
    assert 0.9 < played.seconds < 2
    assert (played.source.reported, played.seen.opened) == ([], 1)
    assert played.is_over()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("prompt", ["", "go ahead!", "="])
def test_a_prompt_may_be_anything(play: Play, door: Door, prompt: str) -> None:
    """The token is sent nevertheless."""
    spoken = protocol(door)
    script = [*BEGIN[spoken], (PROMPT[spoken] + prompt).rstrip(), "C*", REJECTED[spoken], "SILENT"]
    played = play(door, [script])
    assert isinstance(played.raised, LoginRejected)
    assert len(played.seen.tokens) == 2


TRICKLE = {
    "imap": ["DRIP 0.2 * OK " + "still here " * 30],
    "pop": ["DRIP 0.2 + " + "still here " * 30],
    "smtp": ["DRIP 0.2 334-" + "still here " * 30],
}
CHATTER = {"imap": "* OK still here", "pop": "+ ", "smtp": "334-still here"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stage", ["greeting", "answer", "lines"])
def test_a_server_that_sends_slowly_runs_into_the_time_limit(play: Play, door: Door, stage: str) -> None:
    spoken = protocol(door)
    script = {
        "greeting": TRICKLE[spoken],
        "answer": [*answered(door)[0], *TRICKLE[spoken]],
        "lines": [*answered(door)[0], *[f"S: {CHATTER[spoken]}", "SLEEP 0.4"] * 60],
    }[stage]
    played = play(door, [script], timeout=1)
    assert isinstance(played.raised, MailUnavailable)
    assert played.seconds < 2.5
    assert played.source.reported == []
    assert played.is_over()


FLOODS = {
    "imap": {
        "lines": "FLOOD * OK still here",
        "literal": "S: * FOO {2000000000}",
        "line": "RAW * OK " + "x" * 2_000_000,
    },
    "pop": {"lines": "FLOOD + ", "line": "RAW + " + "x" * 2_000_000},
    "smtp": {"lines": "FLOOD 334-still here", "line": "RAW 334-" + "x" * 2_000_000},
}


@pytest.mark.parametrize(("door", "flood"), [(door, flood) for door in DOORS for flood in FLOODS[protocol(door)]])
def test_a_server_that_sends_too_much_is_cut_off(play: Play, door: Door, flood: str) -> None:
    played = play(door, answered(door, FLOODS[protocol(door)][flood], "SILENT"))
    assert isinstance(played.raised, MailUnavailable)
    assert played.seconds < 5
    assert played.source.reported == []


@pytest.mark.parametrize("door", [*IMAP, through_pop])
def test_no_token_goes_to_a_server_without_tls(play: Play, door: Door) -> None:
    spoken = protocol(door)
    played = play(door, [["NOTLS", *BEGIN[spoken], PROMPT[spoken], "C*", "SILENT"]])
    assert isinstance(played.raised, MailUnavailable)
    assert played.seconds < 2
    assert played.seen.tokens == []


@pytest.mark.parametrize("door", DOORS)
def test_the_servers_words_cannot_forge_a_log_line(play: Play, door: Door) -> None:
    spoken = protocol(door)
    played = play(door, answered(door, REJECTED[spoken] + " \x1b[2K\x0badmin logged in", "SILENT"))
    assert isinstance(played.raised, LoginRejected)
    assert r"\x1b[2K\x0badmin logged in" in str(played.raised)


@pytest.mark.parametrize("door", DOORS)
def test_a_token_in_pieces_is_in_no_message(play: Play, door: Door) -> None:
    """The server repeats the token with a space after every twelfth character."""
    spoken = protocol(door)
    played = play(door, answered(door, REJECTED[spoken] + " {resp:12}", "SILENT"))
    assert isinstance(played.raised, LoginRejected)
    assert "…" in played.raised.said
    assert "eyJ" not in repr(played.raised) + repr(played.raised.__cause__)
    assert len(played.raised.said) < 200
