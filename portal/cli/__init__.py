"""The command `atelier`: each command is a thin entry to the same services as the pages and APIs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from atelier.contract.errors import AtelierError
from portal.cli import (
    backups,
    doctor,
    endpoints,
    models,
    process,
    rehearsing,
    setting_commands,
    styles,
    sweeping,
    trail,
    users,
)

GROUPS = (
    process,
    users,
    models,
    styles,
    endpoints,
    setting_commands,
    trail,
    sweeping,
    backups,
    doctor,
    rehearsing,
)


def parser() -> argparse.ArgumentParser:
    """The commands there are."""
    top = argparse.ArgumentParser(prog="atelier", description="A multi-user Stable Diffusion studio.")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0 for success, 1 for a failure that was explained, 2 for a command that cannot be
    understood.
    """
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except AtelierError as error:
        print(f"atelier: {error.message}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
