"""Commands of the emulator of Microsoft's identity platform, for development and for an application's own tests."""

import re
import tempfile
import time
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker import clock
from worker.cli.development import devkit_imports, end_in_good_order
from worker.cli.output import print_json
from worker.cli.ranges import FiniteRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.devkit.emulator.admin_client import AdminClient

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class _Seconds(click.ParamType[Any]):
    """Seconds, or a range of seconds over which the accounts are spread."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = _RANGE.fullmatch(str(value))
        if not found or (found[2] and int(found[2]) < int(found[1])):
            self.fail("write seconds, such as 90, or a range, such as 60-90", param, ctx)
        return [int(found[1]), int(found[2])] if found[2] else int(found[1])


@click.group(invoke_without_command=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8443, hidden=True)
@click.option("--directory", type=click.Path(file_okay=False, exists=True, path_type=Path), hidden=True)
@click.pass_context
def emulator(context: click.Context, port: int, directory: Path | None) -> None:
    """Emulate Microsoft's identity platform: run it, sign users in, break it.

    The other commands find it by WORKER_AUTHORITY and WORKER_CA_BUNDLE, as `run` prints them. See docs/emulator.md.
    """
    if context.invoked_subcommand is None:  # the old way to run it
        _run(port, directory)


@emulator.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8443, show_default=True)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where its certificate authority is written; a temporary one unless given.",
)
def run(port: int, directory: Path | None) -> None:
    """Run it on loopback until Ctrl-C. It lets each caller sign in as any user."""
    _run(port, directory)


def _calls(command: "Callable[..., None]") -> "Callable[..., None]":
    """The command gets the client of a running emulator as ``admin``."""

    @click.option("--authority", envvar="WORKER_AUTHORITY", required=True, help="Default: WORKER_AUTHORITY.")
    @click.option(
        "--ca-bundle",
        envvar="WORKER_CA_BUNDLE",
        type=click.Path(path_type=Path),
        required=True,
        help="Default: WORKER_CA_BUNDLE.",
    )
    @wraps(command)
    def calling(authority: str, ca_bundle: Path, **options: Any) -> None:
        with devkit_imports():
            from worker.devkit.emulator.admin_client import AdminClient, EmulatorError  # noqa: PLC0415

        try:
            command(admin=AdminClient(authority, ca_bundle), **options)
        except EmulatorError as error:
            raise click.ClickException(str(error)) from None

    return calling


def _has_terms(command: "Callable[..., None]") -> "Callable[..., None]":
    """The command gets ``terms`` of accounts, as the admin API calls them."""

    @click.option("--access-token", type=_Seconds(), help="Lifetime of access tokens, such as 3600 or 60-90.")
    @click.option("--refresh-token", type=click.IntRange(1), help="Seconds without use that end a refresh token.")
    @click.option("--rotate/--no-rotate", default=None, help="Whether each refresh brings a new refresh token.")
    @click.option("--strict/--not-strict", default=None, help="Whether a spent refresh token ends the grant.")
    @wraps(command)
    def with_terms(
        access_token: Any, refresh_token: int | None, *, rotate: bool | None, strict: bool | None, **options: Any
    ) -> None:
        terms = {
            "access_token_lifetime": access_token,
            "refresh_token_lifetime": refresh_token,
            "rotate": rotate,
            "strict": strict,
        }
        command(terms={name: value for name, value in terms.items() if value is not None}, **options)

    return with_terms


@emulator.command()
@click.argument("emails", nargs=-1, required=True, metavar="EMAIL...")
@_has_terms
@_calls
def enrol(admin: "AdminClient", emails: tuple[str, ...], terms: dict[str, Any]) -> None:
    """Sign users in. Prints their grants as JSON lines, for: token-worker import -"""
    for email in emails:
        grant = admin.call("POST", "accounts", {"email": email, **terms})
        expires_at = clock.utcnow() + timedelta(seconds=grant["expires_in"])
        tokens = {name: grant[name] for name in ("email", "refresh_token", "access_token")}
        print_json({**tokens, "expires_at": expires_at})


@emulator.command()
@click.argument("emails", nargs=-1, required=True, metavar="EMAIL...")
@_calls
def revoke(admin: "AdminClient", emails: tuple[str, ...]) -> None:
    """End all sign-ins of users, as an administrator does. The next refresh gets AADSTS50173."""
    for email in emails:
        admin.call("POST", "revoke", {"email": email})


@emulator.command()
@click.argument("emails", nargs=-1, required=True, metavar="EMAIL...")
@_has_terms
@_calls
def lifetimes(admin: "AdminClient", emails: tuple[str, ...], terms: dict[str, Any]) -> None:
    """Change the lifetimes of users' tokens, from their next refresh on."""
    if not terms:
        raise click.UsageError("say what to change: see --help")
    for email in emails:
        admin.call("POST", "terms", {"email": email, **terms})


@emulator.command()
@click.argument("name")
@click.option("--email", help="Only requests of this user.")
@click.option("--times", type=click.IntRange(1), help="So many requests; otherwise all, until `faults-end`.")
@click.option("--retry-after", type=click.IntRange(0), help="Seconds in the header Retry-After.")
@click.option("--seconds", type=FiniteRange(0, 86_400), help="How long `hang` waits; 30 unless given.")
@click.option("--after", is_flag=True, help="With hang and reset: the grant has been made by then.")
@_calls
def fault(admin: "AdminClient", name: str, **options: Any) -> None:
    """Answer token requests with a fault: a code such as AADSTS50173, hang, reset, throttled, html-503 and others.

    An unknown name prints the known ones. A fault of a user comes before those of all users.
    """
    given = {option: value for option, value in options.items() if value is not None and value is not False}
    admin.call("POST", "faults", {"fault": name, **given})


@emulator.command("faults-end")
@click.option("--email", help="Only the faults of this user.")
@_calls
def faults_end(admin: "AdminClient", email: str | None) -> None:
    """Answer token requests without faults again."""
    admin.call("DELETE", f"faults?email={email}" if email else "faults")


@emulator.command()
@click.argument("email", required=False)
@_calls
def show(admin: "AdminClient", email: str | None) -> None:
    """Print what the emulator has seen, of one user or of all, as JSON. Never a token."""
    print_json(admin.call("GET", f"accounts/{email}" if email else "statistics"))


COMMANDS: tuple[click.Command, ...] = (emulator,)


def _run(port: int, directory: Path | None) -> None:
    with devkit_imports():
        from worker.devkit.emulator import EmulatorServer  # noqa: PLC0415

    end_in_good_order()
    with tempfile.TemporaryDirectory(prefix="token-worker-") as temporary:
        try:
            server = EmulatorServer((directory or Path(temporary)).resolve(), port=port)
            server.start()
        except OSError as error:
            msg = f"port {port} cannot be used: {error.strerror}"
            raise click.ClickException(msg) from None
        try:
            for name, value in server.environment.items():
                click.echo(f"export {name}={value}")
            click.echo("The emulator is ready; Ctrl-C ends it.", err=True)
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
        finally:
            server.stop()
