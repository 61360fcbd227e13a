"""The command ``doctor``."""

import sys
from collections.abc import Iterator, Sequence
from itertools import chain

import click

from worker.cli.output import as_json, print_json, print_line
from worker.domain.errors import ConfigurationError
from worker.domain.finding import Finding, Level, failed, ok

_WIDTH = 79  # columns
_LABELS = {Level.OK: "ok    ", Level.WARNING: "warn  ", Level.FAILED: "FAIL  "}


@click.command()
@as_json
def doctor(*, json_output: bool) -> None:
    """Try everything that the processes need; say what to do about what is wrong.

    Writes to Postgres (rolled back), Redis and the broker (removed again), and sends Microsoft one token request with
    each credential. Looks for beat and workers by their heartbeats. Exit code 1 if anything has failed.
    """
    findings: list[Finding] = []
    waiting = _Waiting()
    for finding in _findings(waiting):
        findings.append(finding)
        waiting.hide()
        if not json_output:
            print_line(_sentence(finding), label=_LABELS[finding.level])
    has_failed = any(finding.level is Level.FAILED for finding in findings)
    if json_output:
        print_json({"ok": not has_failed, "checks": [_fields(finding) for finding in findings]})
    if has_failed:
        raise SystemExit(1)


def _findings(waiting: "_Waiting") -> Iterator[Finding]:
    # With SQLAlchemy, MSAL, kombu and pydantic, a second's worth.
    from worker.cli.services import services  # noqa: PLC0415
    from worker.examination import doctor as build  # noqa: PLC0415
    from worker.settings import Settings, load  # noqa: PLC0415

    with services() as opened:
        yield from chain([_of_settings()], build(load(Settings), opened).examine(waits_for=waiting.show))


def _of_settings() -> Finding:
    from worker.settings import check_names  # noqa: PLC0415

    try:
        check_names()
    except ConfigurationError as error:
        return failed("settings", str(error), "Correct the name, or unset it")
    return ok("settings")


def _sentence(finding: Finding) -> str:
    if finding.level is Level.OK:
        return finding.subject
    return f"{finding.subject}: {finding.problem.rstrip('.')}. {finding.remedy}".rstrip()


def _fields(finding: Finding) -> dict[str, str | None]:
    return {
        "check": finding.subject,
        "level": finding.level,
        "problem": finding.problem or None,
        "remedy": finding.remedy or None,
    }


class _Waiting:
    """A line on a terminal with the areas whose findings are still to come."""

    def __init__(self) -> None:
        self._is_shown = False

    def show(self, areas: Sequence[str]) -> None:
        if sys.stderr.isatty():
            self.hide()
            words = f"waiting for {', '.join(areas)}"
            click.echo(words[:_WIDTH], nl=False, err=True)
            self._is_shown = True

    def hide(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._is_shown = False


COMMANDS: tuple[click.Command, ...] = (doctor,)
