"""atelier model: files to draw with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.contract.models import ModelKind
from atelier.modelcard import legible
from portal.cli import imports, packs
from portal.cli.commands import OPERATOR, command, group, services
from portal.services.model_folders import files_at, folder_of, is_mere_picture, kind_of
from portal.services.model_views import Wanted
from portal.services.models import ModelFile

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    models = group(commands, "model", "Import models and list them.")
    load = command(
        models, "import", _import, "Register a model file, all files of a folder, or a model from elsewhere."
    )
    load.add_argument(
        "path",
        metavar="FILE|DIR|SOURCE",
        help="a source is hf:organisation/repository[@revision][/file], https://host/path or s3://bucket/key",
    )
    load.add_argument("--link", action="store_true", help="leave the file where it is instead of copying it")
    load.add_argument(
        "--kind", choices=[kind.value for kind in ModelKind], help="what it is; else by its folder's name"
    )
    load.add_argument("--name", help="the name it goes by; else its file's")
    load.add_argument("--sha256", help="what the file of a source must have")
    packs.add_to(models)
    imports.add_to(models)
    command(models, "list", _list, "List the models.")
    command(models, "refresh", _refresh, "Register what is new in folders that were imported with --link.")


def _import(arguments: argparse.Namespace) -> int:
    if arguments.path.startswith(imports.BEGINNINGS):
        return imports.import_source(arguments)
    if arguments.sha256:
        raise InvalidRequest("A sha256 is for a source. A file of this machine is what it is.")
    arguments.path = Path(arguments.path)
    paths = files_at(arguments.path)
    if arguments.name and len(paths) > 1:
        raise InvalidRequest("A name fits one file, not a folder of them. Leave --name out.")
    failed = 0
    with services() as built:
        for path in paths:
            kind = ModelKind(arguments.kind) if arguments.kind else kind_of(path)
            folder = folder_of(path, arguments.path) if arguments.path.is_dir() else ""
            file = ModelFile(path.absolute(), kind, arguments.name, link=arguments.link, folder=folder)
            try:
                found = built.work.models.register(OPERATOR, file)
            except AtelierError as error:
                if arguments.path.is_dir() and is_mere_picture(path, error):
                    continue
                failed += 1
                print(f"{legible(str(path))}: {error.message}", file=sys.stderr)
            else:
                print(f"{found.kind.value}\t{found.title}")
                if arguments.link and (path.is_dir() or found.blob_sha256 != found.sha256):
                    print(f"{path}: not linked: what is served is its conversion to safetensors, now stored.")
        if arguments.link and arguments.path.is_dir():
            stated = ModelKind(arguments.kind) if arguments.kind else None
            built.work.folders.remember(OPERATOR, arguments.path, stated)
    return 1 if failed else 0


def _refresh(_arguments: argparse.Namespace) -> int:
    with services() as built:
        found = built.work.folders.refresh(OPERATOR)
    told = {"": found.added, "  (moved)": found.moved, "  (back)": found.returned}
    for what, models in told.items():
        for model in models:
            print(f"{model.kind.value}\t{model.title}{what}")
    for model in found.missing:
        print(f"{model.title}: its file is gone; it was moved or deleted.", file=sys.stderr)
    for name, reason in found.refused:
        print(f"{name}: {reason}", file=sys.stderr)
    return 1 if found.refused else 0


def _list(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for model, standard in built.work.models.listed():
            print(f"{model.kind.value}\t{model.title}{'  (standard)' if standard else ''}")
        for each in built.work.desk.records(Wanted(missing=True)):
            if each.missing_since is not None:
                print(f"{each.model.kind.value}\t{each.model.title}  (file missing)")
    return 0
