"""Commands that move accounts in and out."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from worker.cli.output import as_json, print_json, print_line, printable
from worker.cli.progress import Advance, progress
from worker.cli.reason import with_reason
from worker.cli.selection import selects_accounts
from worker.cli.services import services
from worker.domain.audit import Action
from worker.domain.selection import Selection

if TYPE_CHECKING:
    from worker.bootstrap import Services
    from worker.domain.account import Account
    from worker.service.moving.exporter import Exporter
    from worker.service.moving.importer import Existing, ImportReport, Reject
    from worker.service.moving.record import Record
    from worker.vault import Vault

# Modules of services are imported in functions: see worker.cli.services.

_REASONS_SHOWN = 20


@click.command("import")
@click.argument("file", metavar="FILE|URL")
@click.option(
    "--from",
    "source",
    type=click.Choice(["prisma", "nextauth", "allauth", "msal-cache", "nango", "mutt"]),
    help="Read another product's database (postgresql://...) or file; see docs/moving-in.md.",
)
@click.option("--table", help="With --from: the table's name, if it is not the usual one.")
@click.option("--dry-run", is_flag=True, help="Check all, count what is new, and store nothing.")
@click.option("--skip-existing", is_flag=True, help="Leave accounts as they are that are stored already.")
@click.option(
    "--only-newer", is_flag=True, help="Replace a stored grant only by one with a later obtained_at or expires_at."
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what is refused to this new file, which you can correct and import.",
)
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="The key of a sealed export.")
@with_reason
@as_json
@click.pass_context
def import_(
    context: click.Context,
    file: str,
    *,
    source: str | None,
    table: str | None,
    rejects: Path | None,
    key_file: Path | None,
    reason: str | None,
    dry_run: bool,
    skip_existing: bool,
    only_newer: bool,
    json_output: bool,
) -> None:
    """Store accounts from a file: JSON lines, a JSON array or CSV with a header. "-" reads standard input.

    \b
    Needed are email and refresh_token. Optional are
      access_token, expires_at,    times: ISO 8601 with an offset, or epoch
        obtained_at                seconds or milliseconds
      client, authority, scopes    the app registration, if not the default
      use_oauth                    false: a password account, without tokens
      imap_host, imap_port,        if not Microsoft's
        smtp_..., pop_...
      login_name, labels           the user name, if not the address; words

    A stored account gets the new grant and becomes active, also if it was paused or disconnected. An old file brings
    back old tokens: see --skip-existing and --only-newer. An account that cannot be used is refused with its line and
    the reason, and the exit code is 1. A terminal shows the first 20 reasons, a file all of them.
    """
    if skip_existing and only_newer:
        raise click.UsageError("--skip-existing and --only-newer exclude each other")
    if source is None and (table or _is_url(file)):
        raise click.UsageError("say with --from whose database it is")
    from worker.service.moving.exporter import opened as opened_records  # noqa: PLC0415
    from worker.service.moving.importer import Existing, Importer  # noqa: PLC0415

    transfer = _transfer(key_file)
    existing = Existing.SKIP if skip_existing else Existing.ONLY_NEWER if only_newer else Existing.REPLACE
    reasons = _Reasons("row" if _is_url(file) else "line")
    with (
        services(reason=reason) as opened,
        _records(context, opened, source, file, table) as found,
        _rejects(rejects, reasons.add) as reject,
        progress(found.total, "import") as advance,
    ):
        report = Importer(opened.accounts).run(
            opened_records(found.records, transfer),
            reject=reject,
            progress=lambda number: advance(number, found.position()),
            existing=existing,
            dry_run=dry_run,
        )
    reasons.finish()
    _say(report, existing, dry_run=dry_run, json_output=json_output)
    if report.refused:
        raise SystemExit(1)


@click.command()
@selects_accounts()
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="Seal each account under this key.")
@click.option("--plain", is_flag=True, help="Write refresh tokens in the clear; asks first.")
@click.option("--to", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write to this new file.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_reason
def export(
    selection: Selection, key_file: Path | None, target: Path | None, *, plain: bool, yes: bool, reason: str | None
) -> None:
    """Write accounts with their tokens, as JSON lines that import reads.

    Make a key for one transfer and give it to the other side: token-worker keygen --id transfer >transfer.key. There,
    import --key-file transfer.key opens the lines. Accounts without a refresh token are left out. Both sides may
    refresh until the cut-over, because Microsoft accepts a refresh token again.
    """
    if (key_file is None) != plain:
        raise click.UsageError("say how: --key-file FILE to seal the accounts, or --plain")
    from worker.service.moving.exporter import Exporter  # noqa: PLC0415
    from worker.settings import KeySettings, load  # noqa: PLC0415
    from worker.vault import Vault  # noqa: PLC0415

    exporter = Exporter(Vault(load(KeySettings).keys), _transfer(key_file))
    with services(reason=reason) as opened:
        selected = opened.accounts.select(selection)
        if plain and not yes:
            _confirm(f"Write the tokens of {len(selected):,} accounts in the clear?")
        with _output(target) as output, progress(len(selected), "export") as advance:
            # Before the first token leaves, so that no export is without a record.
            opened.audit.write(Action.EXPORTED, selected, detail="in the clear" if plain else "sealed")
            written, left = _export(exporter, opened.accounts.list(selection), output, advance)
    click.echo(f"{written} exported, {left} left out", err=True)
    if left:
        raise SystemExit(1)


COMMANDS: tuple[click.Command, ...] = (import_, export)


@dataclass(frozen=True, slots=True)
class _Found:
    """Records to import. ``total`` is their number, or the size of their file in bytes; None if it is unknown."""

    records: Iterator["Record"]
    total: int | None
    file: BufferedReader | None = None

    def position(self) -> int | None:
        """The bytes of the file that have been read."""
        return self.file.tell() if self.file and self.total is not None else None


@contextmanager
def _records(
    context: click.Context, opened: "Services", source: str | None, place: str, table: str | None
) -> Iterator[_Found]:
    from worker.service.moving.files import read_file  # noqa: PLC0415
    from worker.service.moving.sources.reading import open_database, read_source_file  # noqa: PLC0415

    clients = opened.identity.client_ids()
    if source and _is_url(place):
        with open_database(source, place, table=table, clients=clients) as found:
            yield _Found(found.records, found.total)
        return
    file = click.File("rb").convert(place, None, context)
    assert isinstance(file, BufferedReader)
    yield _Found(read_source_file(source, file, clients=clients) if source else read_file(file), _size(file), file)


def _is_url(place: str) -> bool:
    return "://" in place


class _Reasons:
    """Reasons for refusals. On a terminal the first of them follow the bar; elsewhere each is printed at once."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._kept: list[str] = []
        self._number = 0

    def add(self, record: "Record", reason: str) -> None:
        if not reason:
            return
        self._number += 1
        line = printable(f"{self._unit} {record.number}: {reason}")
        if not sys.stderr.isatty():
            click.echo(line, err=True)
        elif self._number <= _REASONS_SHOWN:
            self._kept.append(line)

    def finish(self) -> None:
        for line in self._kept:
            click.echo(line, err=True)
        if self._kept and self._number > len(self._kept):
            click.echo(f"... and {self._number - len(self._kept)} more", err=True)


def _export(exporter: "Exporter", accounts: "Iterable[Account]", output: IO[str], advance: Advance) -> tuple[int, int]:
    """The numbers of accounts that were written, and that have no grant to be written or do not open."""
    from worker.domain.errors import UnreadableSecret  # noqa: PLC0415

    written = left = 0
    for account in accounts:
        try:
            _write_line(output, exporter.line(account))
            written += 1
        except UnreadableSecret as error:
            click.echo(f"{account.email}: {error}", err=True)
            left += 1
        advance(1)
    return written, left


def _confirm(question: str) -> None:
    """Raises click.Abort for a no, and UsageError without a terminal."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("there was no answer; add --yes, which does not ask") from None


def _transfer(key_file: Path | None) -> "Vault | None":
    """The key in the file, as ``keygen`` prints it."""
    from worker.domain.errors import ConfigurationError  # noqa: PLC0415
    from worker.vault import Vault, parse_keys  # noqa: PLC0415

    if key_file is None:
        return None
    try:
        return Vault(parse_keys(key_file.read_text("ascii")))
    except OSError as error:
        raise click.ClickException(f"{key_file}: {error.strerror}") from None
    except (ConfigurationError, ValueError):
        raise click.ClickException(f"{key_file} is no key; make one with: token-worker keygen --id transfer") from None


@contextmanager
def _output(target: Path | None) -> Iterator[IO[str]]:
    if target is None:
        yield sys.stdout
    else:
        with _private(target) as file:
            yield file


@contextmanager
def _rejects(path: Path | None, reject: "Reject") -> Iterator["Reject"]:
    """``reject``, and writing the refused records to a file, if there is one."""
    if path is None:
        yield reject
        return
    with _private(path) as file:

        def write(record: "Record", reason: str) -> None:
            reject(record, reason)
            _write_line(file, record.text)

        yield write


@contextmanager
def _private(path: Path) -> Iterator[IO[str]]:
    """A new file for tokens, which other users cannot read."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        msg = f"{path}: {error.strerror}; name a new file"
        raise click.ClickException(msg) from None
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        yield file


def _write_line(file: IO[str], text: str) -> None:
    file.write(text if text.endswith("\n") else f"{text}\n")


def _size(file: BufferedReader) -> int | None:
    """In bytes; None for a pipe."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _say(report: "ImportReport", existing: "Existing", *, dry_run: bool, json_output: bool) -> None:
    if json_output:
        print_json(asdict(report))
        return
    imported = "would be imported" if dry_run else "imported"
    parts = [f"{report.new + report.replaced} {imported} ({report.new} new, {report.replaced} replaced)"]
    if existing != "replace":
        parts.append(f"{report.left} left as they were")
    if report.repeated:
        parts.append(f"{report.repeated} repeated")
    print_line(", ".join([*parts, f"{report.refused} refused"]))
    if report.expiry_missing:
        print_line(
            f"{report.expiry_missing} access tokens without expires_at were left out; the accounts are refreshed soon."
        )
