"""The command completion: what a shell needs to complete commands, options and names of sets."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from redset.cli.output import Output
from redset.cli.program import Command, program


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion of a shell, to be read at its start.

    Names of sets are completed from the server, if it answers within 0.2 s.

    \b
    Examples:
      redset completion bash > ~/.local/share/bash-completion/completions/redset
      redset completion fish > ~/.config/fish/completions/redset.fish
    """
    kind = get_completion_class(shell)
    output = Output()
    output.write(kind(program, {}, "redset", "_REDSET_COMPLETE").source().encode() + b"\n")
    output.flush()
    return 0


COMMANDS = {"completion": completion}
