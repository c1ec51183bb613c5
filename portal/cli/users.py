"""atelier user: accounts."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING

from atelier.contract.errors import InvalidRequest, NotFound
from portal.cli.commands import OPERATOR, command, group, services
from portal.domain.access import SubjectKind
from portal.services.container import Services
from portal.services.identity import Change
from portal.services.permissions import DESIGNER

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    users = group(commands, "user", "Add users, list them, reset passwords.")
    add = command(users, "add", _add, "Add a user.")
    add.add_argument("name")
    add.add_argument(
        "--role", action="append", help=f"a role, several times for several; {DESIGNER} where none is given"
    )
    command(users, "list", _list, "List everybody.")
    password = command(users, "password", _password, "Set a user's password and end their logins.")
    password.add_argument("name")
    weight = command(users, "weight", _weight, "Say how much a user counts where several wait.")
    weight.add_argument("name")
    weight.add_argument("weight", type=float, help="usually 1; with 2 twice as much is done for them")
    for each in (add, password):
        each.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )


def _add(arguments: argparse.Namespace) -> int:
    password = _read_password(from_stdin=arguments.password_stdin)
    with services() as built:
        made = built.identity.create(OPERATOR, arguments.name, password, arguments.role or DESIGNER)
    print(f"Added {made.username} ({', '.join(made.roles)}).")
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for user in built.identity.users():
            print(f"{user.username}\t{','.join(user.roles)}\t{'disabled' if user.disabled else 'active'}")
    return 0


def _password(arguments: argparse.Namespace) -> int:
    password = _read_password(from_stdin=arguments.password_stdin)
    with services() as built:
        user_id = _id_of(built, arguments.name)
        built.identity.change(OPERATOR, user_id, Change(password=password))
    print(f"The password of {arguments.name} is set.")
    return 0


def _weight(arguments: argparse.Namespace) -> int:
    with services() as built:
        user_id = _id_of(built, arguments.name)
        share = built.shares.put(OPERATOR, SubjectKind.USER, user_id, arguments.weight)
    print(f"{share.subject_name} counts {share.weight:g}.")
    return 0


def _id_of(built: Services, name: str) -> str:
    for user in built.identity.users():
        if user.username == name.strip().lower():
            return user.id
    raise NotFound(f"There is no user named {name!r}.")


def _read_password(*, from_stdin: bool) -> str:
    """One line of standard input, or asked twice at the terminal. Never an argument: those stand in process
    lists.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidRequest("There is no terminal to ask for the password at. Give --password-stdin.")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Again: "):
        raise InvalidRequest("The two passwords differ.")
    return first
