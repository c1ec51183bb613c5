"""What the command modules share: how a command is declared, and services that start nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from portal.bootstrap import build
from portal.db.migrate import upgrade
from portal.services.audit import Named
from portal.services.container import Services
from portal.settings import load

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OPERATOR = Named(None, "command line")
"""Who the audit trail names for what was done by command."""


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Declare a command that `run` carries out."""
    declared = commands.add_parser(name, help=text, description=text)
    declared.set_defaults(run=run)
    return declared


def group(commands: Commands, name: str, text: str) -> Commands:
    """Declare a word that further commands follow."""
    declared = commands.add_parser(name, help=text, description=text)
    return declared.add_subparsers(title="commands", metavar="COMMAND", required=True)


@contextmanager
def services() -> Iterator[Services]:
    """The services on the settings' data, its database brought up to date. No worker is started."""
    settings = load()
    built = build(settings.model_copy(update={"roles": ("api",)}))
    try:
        upgrade(built.database)
        yield built
    finally:
        built.stop()
