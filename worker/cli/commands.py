"""All commands, in the sections of ``--help``. Each module is imported when one of its commands is used."""

from collections.abc import Iterator
from importlib import import_module
from types import MappingProxyType
from typing import Any

import click

from worker.cli import errors
from worker.cli.output import printable, without_tokens
from worker.domain.errors import ConfigurationError, InvalidInput, NeedsUser, WorkerError

FAILED, USAGE, USER_NEEDED, CONFIGURATION_WRONG = 1, 2, 3, 4

_EXIT_CODES: tuple[tuple[type[WorkerError], int], ...] = (
    (ConfigurationError, CONFIGURATION_WRONG),
    (NeedsUser, USER_NEEDED),
    (InvalidInput, USAGE),
    (WorkerError, FAILED),
)

#: Section, module below this package, its commands.
_SECTIONS = (
    ("Run", {"operations": ("migrate",), "exporter": ("exporter",)}),
    (
        "Accounts",
        {
            "accounts": ("connect", "list", "show", "token"),
            "moving": ("import", "export"),
            "why": ("why",),
            "states": ("refresh", "pause", "resume", "disconnect", "erase", "rename"),
        },
    ),
    (
        "Operate",
        {
            "status": ("status",),
            "doctor": ("doctor",),
            "breakers": ("breaker",),
            "audit": ("audit",),
            "simulation": ("simulate",),
            "operations": ("keygen", "rotate-keys"),
            "completion": ("completion",),
        },
    ),
    ("Develop", {"development": ("demo", "up"), "emulator": ("emulator",)}),
)
_MODULES = MappingProxyType(
    {name: module for _, modules in _SECTIONS for module, names in modules.items() for name in names}
)


class Commands(click.Group):
    """Turns what this package raises on purpose into one sentence and an exit code; anything else is a bug."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        commands: tuple[click.Command, ...] = import_module(f"{__package__}.{module}").COMMANDS
        return next(command for command in commands if command.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In sections, and each with its whole first sentence."""
        for title, modules in _SECTIONS:
            with formatter.section(title):
                names = [name for names in modules.values() for name in names]
                formatter.write_dl([(name, _sentence(self.get_command(ctx, name))) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # It repeats a misplaced argument.
            message = printable(without_tokens(error.format_message()))
            if not errors.as_json():
                raise click.UsageError(message, ctx=error.ctx) from None
            errors.print_usage_error(message)
            ctx.exit(USAGE)
        except WorkerError as error:
            errors.print_error(error)
            ctx.exit(next(code for kind, code in _EXIT_CODES if isinstance(error, kind)))


def all_commands(root: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Each command with its name, those of groups as ``breaker list``."""
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", each) for below, each in all_commands(command))


def _sentence(command: click.Command | None) -> str:
    return command.get_short_help_str(limit=1000) if command else ""
