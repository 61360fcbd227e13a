"""Writes docs/error-codes.md from the table of codes: ``python -m worker.devkit.error_codes``."""

from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from worker.domain.advice import PERSONAL, SENTENCES
from worker.domain.codes import BY_ERROR, BY_NUMBER, ROWS, CodeRow, Verdict
from worker.domain.outcome import Scope

PAGE = Path(__file__).parents[2] / "docs" / "error-codes.md"

#: The sources of rows that name no GitHub thread.
SOURCES = {
    "published list": "[Microsoft's list](https://learn.microsoft.com/entra/identity-platform/reference-error-codes) of"
    " error codes, read from its repository MicrosoftDocs/entra-docs",
    "sign-in page": "names in the script of Microsoft's sign-in page",
    "sign-ins report": "Microsoft's older list of codes of the sign-ins report, in MicrosoftDocs/azure-docs",
    "support articles": "articles per code in MicrosoftDocs/SupportArticles-docs",
    "Conditional Access pages": "Microsoft's pages on Conditional Access, in MicrosoftDocs/entra-docs",
    "device code page": "Microsoft's page on the device authorization grant, in MicrosoftDocs/entra-docs",
    "B2B guide": "a public copy of Microsoft's troubleshooting guide for guests",
    "RFC 6749": "[OAuth 2.0](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)",
    "RFC 8628": "[the device authorization grant](https://www.rfc-editor.org/rfc/rfc8628#section-3.5)",
    "RFC 8707": "[resource indicators](https://www.rfc-editor.org/rfc/rfc8707#section-2)",
    "OpenID Connect": "[OpenID Connect Core](https://openid.net/specs/openid-connect-core-1_0.html#AuthError)",
    "this project": "seen or reported while this worker was built; no public thread is recorded",
    "worker": "this worker's own codes",
}

_INTRODUCTION = """\
# Error codes

`token-worker show`, `doctor`, the log and the metrics name the code of the last failure. Find it on this page with your
browser's search. Each row says what the code means and what you can do; the heading above it says what the worker
does. The advice for users is at the end.

A code that is not on this page is new to the worker. It counts as a matter of the one account: after three such answers
over ten minutes its status is `reauth_required`, and no circuit breaker opens. Look the code up at
<https://login.microsoftonline.com/error> and report it, so that it gets a row.

Written by `make docs` from `worker/domain/codes.csv` and `advice.csv`; do not edit it here.
"""

_WHOSE = {
    Scope.ACCOUNT: "account",
    Scope.RESOURCE: "resource",
    Scope.TENANT: "tenant",
    Scope.CLIENT: "app registration",
    Scope.SERVICE: "Microsoft",
    Scope.NETWORK: "network",
}

_SECTIONS: tuple[tuple[str, str, frozenset[Verdict]], ...] = (
    (
        "The user must sign in again",
        "Status `reauth_required` at once. The grant is looked at again once a day, and a new sign-in ends it.",
        frozenset({Verdict.REAUTH}),
    ),
    (
        "The user must sign in again, if it lasts",
        "Three such answers over ten minutes make the status `reauth_required`; until then the worker tries again.",
        frozenset({Verdict.UNPROVEN}),
    ),
    (
        "An administrator must act",
        "Status `blocked`. A new sign-in does not help. The account is tried again once a day.",
        frozenset({Verdict.BLOCKED}),
    ),
    (
        "The app registration or a setting must be corrected",
        (
            "Accounts stay `active` and are tried again. A code of the app registration opens its circuit breaker after"
            " three accounts; a code of a tenant that has removed the app makes its accounts `blocked` after a day."
        ),
        frozenset({Verdict.MISCONFIGURED, Verdict.SCOPES_REFUSED, Verdict.AUTHORITY_REFUSED}),
    ),
    (
        "The worker asks again without its credential",
        (
            "The grant came from a public client, such as a device code. If Microsoft refuses that request as well, the"
            " refusal concerns the account alone."
        ),
        frozenset({Verdict.PUBLIC_CLIENT}),
    ),
    (
        "It passes by itself",
        "The worker waits as long as Microsoft asks it to, else longer from time to time, and tries again.",
        frozenset({Verdict.THROTTLED, Verdict.TRANSIENT, Verdict.TRANSIENT_LONG}),
    ),
)


def render() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for title, what, verdicts in _SECTIONS:
        # As text, so that 500341 follows 50034, of which it is a variant.
        rows = sorted((row for row in BY_NUMBER.values() if row.verdict in verdicts), key=attrgetter("code"))
        parts.append(f"## {title}\n\n{what}\n\n{_table(rows)}")
    own = (row for row in ROWS if row.kind == "worker")
    parts.append(f"## Error names without a number\n\n{_table(BY_ERROR.values(), is_mixed=True)}")
    parts.append(f"## The worker's own codes\n\n{_table(own, is_mixed=True)}")
    parts.append(_advice())
    parts.append(_sources())
    return "\n".join(parts)


def _table(rows: Iterable[CodeRow], *, is_mixed: bool = False) -> str:
    verdict = "| verdict " if is_mixed else ""
    rule = "| --- " if is_mixed else ""
    lines = [f"| code | meaning and what to do {verdict}| concerns | advice |", f"| --- | --- {rule}| --- | --- |"]
    for row in rows:
        cell = f"| {row.verdict.value} " if is_mixed else ""
        lines.append(f"| `{row.code}`{_name(row)} | {_meaning(row)} {cell}| {_WHOSE[row.scope]} | {_key(row.advice)} |")
    return "\n".join(lines) + "\n"


def _name(row: CodeRow) -> str:
    return f"<br>{row.name}" if row.name else ""


def _meaning(row: CodeRow) -> str:
    if row.source in SOURCES:
        return row.hint
    repository, _, number = row.source.partition("#")
    return f"{row.hint} ([{row.source}](https://github.com/{repository}{f'/issues/{number}' if number else ''}))"


def _key(advice: str) -> str:
    return advice.replace("_", " ")


def _advice() -> str:
    lines = [f"| {_key(key)} | {sentence} | {PERSONAL.get(key, 'the same')} |" for key, sentence in SENTENCES.items()]
    head = "| advice | for a work account | for a personal account |\n| --- | --- | --- |"
    return f"## Advice for users\n\n{head}\n" + "\n".join(lines) + "\n"


def _sources() -> str:
    others = [f"* {name}: {text}" for name, text in SOURCES.items()]
    return (
        "## Sources\n\nRows come from these, or from the GitHub thread that they name.\n\n" + "\n".join(others) + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(render())
