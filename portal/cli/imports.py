"""atelier model import SOURCE, and atelier model token: models from elsewhere, and what opens doors there."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from atelier.contract.errors import InvalidRequest
from atelier.contract.models import ModelKind
from portal.cli.commands import OPERATOR, command, group, services
from portal.domain.imports import ImportState
from portal.services.container import Services
from portal.services.imports import ImportView, ImportWish

if TYPE_CHECKING:
    from portal.cli.commands import Commands

BEGINNINGS = ("hf:", "http://", "https://", "s3://")
"""Of what is a source and no path."""
LOOK_SECONDS = 0.3


def add_to(models: Commands) -> None:
    """Declare `token` below `model`."""
    tokens = group(models, "token", "Tokens for the sites that models are imported from: the studio's.")
    add = command(tokens, "add", _add_token, "Keep a token. It is sent to its own site alone.")
    add.add_argument("name")
    add.add_argument("--site", default="", help="the host it is for (the Hugging Face Hub)")
    add.add_argument(
        "--token-stdin", action="store_true", required=True, help="read the token from standard input"
    )
    command(tokens, "list", _list_tokens, "List the studio's tokens, without what they are.")
    delete = command(tokens, "delete", _delete_token, "Forget a token.")
    delete.add_argument("name")


def import_source(arguments: argparse.Namespace) -> int:
    """Import a model by its source, and follow it to its end. Ctrl-C cancels it."""
    if arguments.link:
        raise InvalidRequest("Only a file of this machine can be linked. Leave --link out.")
    wish = ImportWish(
        arguments.path,
        ModelKind(arguments.kind or ModelKind.CHECKPOINT),
        name=arguments.name or "",
        sha256=arguments.sha256 or "",
    )
    with services() as built:
        asked = built.work.imports.ask(OPERATOR, wish)
        try:
            view = _followed(built, asked.id)
        except KeyboardInterrupt:
            built.work.imports.cancel(OPERATOR, asked.id)
            built.work.importing.drive(asked.id)
            print("Cancelled.", file=sys.stderr)
            return 130
        built.work.importing.drive(asked.id)
    if view.state is ImportState.SUCCEEDED:
        print(f"{view.kind.value}\t{view.model}")
        return 0
    why = view.error["message"] if view.error else f"The import was {view.state.value}."
    print(why, file=sys.stderr)
    return 1


def _followed(built: Services, import_id: str) -> ImportView:
    """The import once it is final. A portal that runs may carry it out; else this process does."""
    told, pause = "", threading.Event()
    while True:
        built.work.importing.drive(import_id)
        view = built.work.imports.get(OPERATOR, import_id)
        if view.state.final:
            return view
        line = _line(view)
        if line != told:
            print(line, file=sys.stderr, flush=True)
            told = line
        pause.wait(LOOK_SECONDS)


def _line(view: ImportView) -> str:
    """How far it is, in tenths."""
    if view.state is ImportState.QUEUED:
        return f"waiting: {view.error['message']}" if view.error else "waiting"
    if view.total:
        return f"{view.phase} {10 * (10 * view.done // view.total)} % of {view.total / 2**20:,.0f} MiB"
    return view.phase


def _add_token(arguments: argparse.Namespace) -> int:
    token = sys.stdin.readline().strip()
    with services() as built:
        kept = built.work.imports.tokens.keep(OPERATOR, arguments.name, arguments.site, token)
    print(f"Kept {kept.name} for {kept.site}.")
    return 0


def _list_tokens(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for each in built.work.imports.tokens.listed(OPERATOR):
            print(f"{each.name}\t{each.site}\t{'used' if each.used else 'never used'}")
    return 0


def _delete_token(arguments: argparse.Namespace) -> int:
    with services() as built:
        tokens = built.work.imports.tokens
        named = [each for each in tokens.listed(OPERATOR) if each.name == arguments.name]
        if not named:
            raise InvalidRequest(f"There is no token named {arguments.name!r}. See: atelier model token list")
        tokens.delete(OPERATOR, named[0].id)
    print(f"Forgot {arguments.name}.")
    return 0
