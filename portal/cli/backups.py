"""atelier backup and restore: a studio of one machine as one file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.contract.errors import InvalidRequest
from portal.adapters.local import backup
from portal.cli.commands import command
from portal.settings import load

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    made = command(commands, "backup", _backup, "Write the whole studio of this machine to one file.")
    made.add_argument("file", type=Path, metavar="FILE")
    back = command(commands, "restore", _restore, "Bring a studio back from a backup.")
    back.add_argument("file", type=Path, metavar="FILE")
    back.add_argument(
        "directory", type=Path, metavar="DIR", help="a data directory that is empty or not there"
    )


def _backup(arguments: argparse.Namespace) -> int:
    settings = load()
    if settings.database_url or settings.store_url:
        raise InvalidRequest(
            "This studio keeps its data elsewhere (ATELIER_DATABASE_URL, ATELIER_STORE_URL): back that up "
            "with the tools of that database and store."
        )
    made = backup.back_up(settings.data_dir, arguments.file)
    print(f"Wrote {arguments.file}: {made.files} files, {made.size / 2**20:,.1f} MiB.")
    print("It has the studio's secrets: keep it as you keep those.")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    made = backup.restore(arguments.file, arguments.directory)
    print(f"Restored {made.files} files. Start the studio with ATELIER_DATA_DIR={arguments.directory}.")
    return 0
