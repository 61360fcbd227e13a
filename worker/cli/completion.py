"""The command ``completion``."""

import click
from click.shell_completion import get_completion_class

_SHELLS = ["bash", "zsh", "fish"]


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which a shell completes the commands and their options.

    \b
    bash: put  eval "$(token-worker completion bash)"  into ~/.bashrc
    zsh:  put  eval "$(token-worker completion zsh)"   into ~/.zshrc
    fish: write it to ~/.config/fish/completions/token-worker.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "token-worker", "_TOKEN_WORKER_COMPLETE").source())


COMMANDS: tuple[click.Command, ...] = (completion,)
