"""The command ``redset``: see and handle the sets of a server from a terminal.

It stands on the public names of redset alone (a test keeps it so). `main` imports click; `import
redset` never does.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ("main",)


def main() -> int:
    """Run the command with the arguments of this process. Return its exit status."""
    if importlib.util.find_spec("click") is None:
        print("redset: click is missing: pip install 'redset[cli]'", file=sys.stderr)
        return 2
    from redset.cli.program import program

    program.main(prog_name="redset")
    return 0
