"""atelier styles: the studio's prompt styles."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from atelier import stylefile
from atelier.contract.errors import NotFound
from portal.cli.commands import OPERATOR, command, group, services
from portal.services.styles import Scope

if TYPE_CHECKING:
    from portal.cli.commands import Commands

_SHOWN = 60
"""How many characters of a text the list shows."""


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    styles = group(commands, "styles", "Import the studio's prompt styles, list and export them.")
    load = command(styles, "import", _import, "Take in a styles.csv for everybody.")
    load.add_argument("file", type=Path, metavar="FILE")
    command(styles, "list", _list, "List the studio's styles.")
    export = command(styles, "export", _export, "Write the studio's styles to a styles.csv.")
    export.add_argument("file", type=Path, metavar="FILE")


def _import(arguments: argparse.Namespace) -> int:
    if not arguments.file.is_file():
        raise NotFound(f"There is no file {arguments.file}.")
    with arguments.file.open("rb") as file:
        data = file.read(stylefile.MAX_BYTES + 1)
    with services() as built:
        intake = built.styles.take_in(OPERATOR, Scope.STUDIO, data)
    for row in intake.refused:
        print(f"{arguments.file}:{row.line}: {_line(row.name)}: {row.reason}", file=sys.stderr)
    print(f"Added {intake.added}, replaced {intake.replaced}, refused {len(intake.refused)}.")
    return 1 if intake.refused else 0


def _list(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for each in built.styles.listed(OPERATOR, Scope.STUDIO):
            print("\t".join(_line(text) for text in (each.name, each.prompt, each.negative_prompt)))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    with services() as built:
        data = built.styles.written(OPERATOR, Scope.STUDIO)
    if arguments.file.is_file():
        # As the peer does it: what was there is kept beside.
        arguments.file.replace(arguments.file.with_name(arguments.file.name + ".bak"))
    arguments.file.write_bytes(data)
    print(f"Wrote {arguments.file}.")
    return 0


def _line(text: str) -> str:
    """A text on one line that a terminal only shows, never obeys."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 1] + "…"
