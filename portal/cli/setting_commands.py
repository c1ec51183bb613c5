"""atelier settings: what holds for the studio, for a team and for a user, what is locked, what was before."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from atelier.contract.errors import NotFound, UnknownName
from atelier.logs import printable
from portal.cli.commands import OPERATOR, command, group, services
from portal.services.container import Services
from portal.services.setting_levels import PLATFORM, Scope, SettingView, of_team, of_user

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    settings = group(commands, "settings", "Set, lock and bring back options of pictures.")
    listed = command(settings, "list", _list, "List every option as it holds.")
    listed.add_argument("--all", action="store_true", help="also those that have their built-in value")
    get = command(settings, "get", _get, "Say how one option holds, and who says so.")
    put = command(settings, "set", _set, "Set an option: for the studio, a team or a user.")
    unset = command(settings, "unset", _unset, "Let an option have the value from the level below again.")
    lock = command(settings, "lock", _lock, "Lock options for the levels above and for requests.")
    unlock = command(settings, "unlock", _unlock, "Set locked options free.")
    history = command(settings, "history", _history, "List the versions, newest first.")
    undo = command(settings, "undo", _undo, "Bring a version back as a new one.")
    for each in (get, put, unset):
        each.add_argument("key")
    put.add_argument("value", help="JSON, or a word: 2, true, Euler")
    put.add_argument("--lock", action="store_true", help="lock it too")
    for each in (lock, unlock):
        each.add_argument("key", nargs="+")
    undo.add_argument("version", type=int, help="0 is the time before the first")
    for each in (listed, get, put, unset, lock, unlock, history, undo):
        whose = each.add_mutually_exclusive_group()
        whose.add_argument("--team", help="a team's; without this and --user the studio's")
        whose.add_argument("--user", help="a user's own")


def _list(arguments: argparse.Namespace) -> int:
    with services() as built:
        view = built.setting_levels.view(OPERATOR, _scope(built, arguments))
    for each in view.settings:
        if arguments.all or each.own or each.locks or each.value != each.default:
            print(_line(each))
    return 0


def _get(arguments: argparse.Namespace) -> int:
    with services() as built:
        view = built.setting_levels.view(OPERATOR, _scope(built, arguments))
    known = {each.key: each for each in view.settings}
    if arguments.key not in known:
        raise UnknownName.of("option", arguments.key, sorted(known))
    print(_line(known[arguments.key]))
    return 0


def _set(arguments: argparse.Namespace) -> int:
    try:
        value = json.loads(arguments.value)
    except ValueError:
        value = arguments.value
    locks = {arguments.key: True} if arguments.lock else {}
    return _change(arguments, {arguments.key: value}, locks)


def _unset(arguments: argparse.Namespace) -> int:
    return _change(arguments, {arguments.key: None}, {})


def _lock(arguments: argparse.Namespace) -> int:
    return _change(arguments, {}, dict.fromkeys(arguments.key, True))


def _unlock(arguments: argparse.Namespace) -> int:
    return _change(arguments, {}, dict.fromkeys(arguments.key, False))


def _change(arguments: argparse.Namespace, values: dict[str, Any], locks: dict[str, bool]) -> int:
    """Change, and show how what was named holds now. 1 where something was not stored."""
    with services() as built:
        scope = _scope(built, arguments)
        ignored = built.setting_levels.change(OPERATOR, scope, values, locks)
        view = built.setting_levels.view(OPERATOR, scope)
    for each in view.settings:
        if each.key in {*values, *locks}:
            print(_line(each))
    for field, reason in ignored:
        print(f"{field} was not stored: {reason}")
    return 1 if ignored else 0


def _history(arguments: argparse.Namespace) -> int:
    with services() as built:
        versions = built.setting_levels.versions(OPERATOR, _scope(built, arguments))
    for each in versions:
        at = datetime.fromtimestamp(each.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        values = ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(each.values.items()))
        locked = f"\tlocked: {', '.join(each.locked)}" if each.locked else ""
        back = f"\t(version {each.undoes_to} again)" if each.undoes_to is not None else ""
        by = printable(each.actor_name) or "-"
        print(f"{each.number}\t{at}\t{by}\t{printable(values) or '(nothing)'}{locked}{back}")
    if not versions:
        print("Nothing was ever changed here.")
    return 0


def _undo(arguments: argparse.Namespace) -> int:
    with services() as built:
        built.setting_levels.undo(OPERATOR, _scope(built, arguments), arguments.version)
    print(f"What version {arguments.version} said holds again.")
    return 0


def _scope(built: Services, arguments: argparse.Namespace) -> Scope:
    if arguments.team is not None:
        found = [each.id for each in built.teams.listed() if each.name == arguments.team]
        if not found:
            raise NotFound(f"There is no team named {arguments.team[:80]!r}.")
        return of_team(found[0])
    if arguments.user is not None:
        name = arguments.user.strip().lower()
        found = [each.id for each in built.identity.users() if each.username == name]
        if not found:
            raise NotFound(f"There is no user named {arguments.user[:80]!r}.")
        return of_user(found[0])
    return PLATFORM


def _line(view: SettingView) -> str:
    """`key`, the value as JSON, where it comes from, and who has locked it, with tabs between."""
    locked = "locked" if view.locks else f"locked by {view.locked_by}" if view.locked_by else ""
    return "\t".join((view.key, json.dumps(view.value), printable(view.source), printable(locked))).rstrip()
