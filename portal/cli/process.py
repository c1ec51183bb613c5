"""atelier up, portal, prepare, migrate, worker: the processes of the studio."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from atelier.contract.errors import InvalidRequest
from portal import up
from portal.bootstrap import open_database
from portal.cli.commands import command
from portal.db import migrate
from portal.first_start import FIRST_USER, prepare
from portal.settings import load

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    up_ = command(commands, "up", _up, "Run the studio on this machine, in the foreground.")
    up_.add_argument(
        "--simulate-aws",
        action="store_true",
        help="as on AWS, on an account that is played here and gone afterwards",
    )
    up_.add_argument("--speed", type=float, default=60.0, help="with it: simulated seconds for each real one")
    command(commands, "portal", _portal, "Run one portal process alone: another one beside those that run.")
    command(commands, "migrate", _migrate, "Bring the database up to this version.")
    command(commands, "prepare", _prepare, "Make what a new studio needs: tables, secrets, the first user.")
    worker = command(commands, "worker", _worker, "Run one inference worker, as its container does.")
    worker.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the worker")


def _up(arguments: argparse.Namespace) -> int:
    return up.run(load(), simulate_aws=arguments.speed if arguments.simulate_aws else None)


def _portal(_arguments: argparse.Namespace) -> int:
    """Become the portal: signals reach it directly."""
    os.execv(sys.executable, [sys.executable, "-m", "portal.app"])  # noqa: S606


def _migrate(_arguments: argparse.Namespace) -> int:
    database = open_database(load())
    try:
        print("The database was brought up to date." if migrate.upgrade(database) else "Nothing to do.")
    finally:
        database.close()
    return 0


def _prepare(_arguments: argparse.Namespace) -> int:
    """What `up` does first, for a studio whose processes something else starts."""
    settings = load()
    if settings.platform == "aws" and settings.admin_password is None:
        raise InvalidRequest(
            "The first user needs a password that nobody reads in a log. Set ATELIER_ADMIN_PASSWORD, "
            "as the templates do from a secret."
        )
    prepared = prepare(settings)
    for note in prepared.notes:
        print(note)
    if prepared.password is not None:
        print(f"Log in as {FIRST_USER} with the password {prepared.password} (shown this once).")
    print("The studio is prepared.")
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    """Become the worker: it reads its own settings, and signals reach it directly."""
    os.execv(sys.executable, [sys.executable, "-m", "workers.inference.server", *arguments.arguments])  # noqa: S606
