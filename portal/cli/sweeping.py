"""atelier sweep: remove what lies in the store and is nobody's."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from atelier.contract.errors import InvalidRequest
from portal.cli.commands import OPERATOR, command, services
from portal.services.orphans import AGE_SECONDS

if TYPE_CHECKING:
    from portal.cli.commands import Commands

_MINUTE = 60.0


def add_to(commands: Commands) -> None:
    """Declare the command."""
    sweep = command(commands, "sweep", _sweep, "Remove what lies in the store and is nobody's.")
    sweep.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    sweep.add_argument(
        "--older-than",
        type=float,
        default=AGE_SECONDS / _MINUTE,
        metavar="MINUTES",
        help="what is younger stays (%(default)g); less than an hour only while no portal runs",
    )


def _sweep(arguments: argparse.Namespace) -> int:
    if arguments.older_than < 0:
        raise InvalidRequest("--older-than is a number of minutes, 0 or more.")
    age = arguments.older_than * _MINUTE
    with services() as built:
        swept = built.work.orphans.sweep(OPERATOR, age=age, dry_run=arguments.dry_run)
    if swept.refused:
        print(f"The store was not swept: {swept.refused}.", file=sys.stderr)
        return 1
    done = "Would remove" if arguments.dry_run else "Removed"
    for kind, count in sorted(swept.found.items()):
        print(f"  {kind}: {count}")
    print(f"{done} {swept.blobs} of nobody's, {swept.size / 2**20:,.1f} MiB.")
    return 0
