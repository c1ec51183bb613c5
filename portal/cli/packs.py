"""atelier model pack: a model as an archive for SageMaker's inference containers."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from atelier import modelkind, modelpack
from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, UnknownName
from atelier.contract.models import ModelKind
from atelier.modelfile import read_header
from atelier.resolve import naming
from atelier.storage.base import BlobStore
from atelier.storage.opening import open_store
from portal.cli.commands import command, services

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(models: Commands) -> None:
    """Declare the command among those of `atelier model`."""
    pack = command(models, "pack", _pack, "Write a checkpoint as an archive for SageMaker's containers.")
    pack.add_argument("model", metavar="NAME|FILE", help="a registered checkpoint, or a .safetensors file")
    pack.add_argument(
        "--vae",
        metavar="NAME|FILE",
        help="an autoencoder to go with it, None for no other; else the one the studio's Automatic takes",
    )
    pack.add_argument("--output", default=".", metavar="DIR|URL", help="a folder, or the URL of a store")
    pack.add_argument("--force", action="store_true", help="replace an archive of the same name")


def _pack(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        name, members = _found(arguments.model, ModelKind.CHECKPOINT, "", place)
        members |= _vae(arguments.vae or _automatic(arguments.model), place)
        members |= modelpack.code()
        if "://" not in arguments.output:
            target = Path(arguments.output) / f"{name}.tar.gz"
            print(modelpack.write(members, target, force=arguments.force))
            return 0
        store, key = open_store(arguments.output), keys.archive(name)
        if store.stat(key) is not None and not arguments.force:
            raise Conflict(f"{store.location(key)} is there already. Give --force to replace it.")
        store.put(key, modelpack.write(members, place / f"{name}.tar.gz"))
        print(store.location(key))
    return 0


def _vae(named: str, place: Path) -> modelpack.Members:
    """The members of a VAE: a file, or what is registered under that name; none of it for "None". Raises
    ModelUnusable for a file that is none.
    """
    if named == "None":
        return {}
    members = _found(named, ModelKind.VAE, "VAE/", place)[1]
    for path in members.values():
        if isinstance(path, Path):
            modelkind.check(Path(named).name, read_header(path), ModelKind.VAE)
    return members


def _automatic(named: str) -> str:
    """The VAE that goes with a checkpoint unasked: of a registered one as in the studio, of a file the one
    that lies beside it; "None" without.
    """
    path = Path(named)
    if path.is_file():
        beside = path.with_suffix(".vae.safetensors")
        return str(beside) if beside.is_file() else "None"
    with services() as built:
        known = built.work.models.catalogue()
        checkpoint = known.find(ModelKind.CHECKPOINT, named)
        vae = naming.vae(known, {}, checkpoint) if checkpoint else None
    return vae.title if vae else "None"


def _found(named: str, kind: ModelKind, folder: str, place: Path) -> tuple[str, modelpack.Members]:
    """(stem, members) of a model: a file with the .yaml beside it, or what is registered under that name;
    what is not on this machine is fetched into the folder `place`.
    """
    path = Path(named)
    if path.suffix == ".safetensors" and path.is_file():
        members: modelpack.Members = {f"{folder}{path.name}": path}
        if path.with_suffix(".yaml").is_file():
            members[f"{folder}{path.stem}.yaml"] = path.with_suffix(".yaml")
        return path.stem, members
    if path.exists():
        raise InvalidRequest(
            f"{named} is no .safetensors file. Import it first: atelier model import {named}"
        )
    with services() as built:
        known = [ref for ref, _ in built.work.models.listed(kind)]
        ref = next((each for each in known if each.answers_to(named)), None)
        if ref is None:
            raise UnknownName.of(kind.value, named, [each.filename for each in known])
        stem = ref.filename.rsplit(".", 1)[0]
        members = {f"{folder}{stem}.safetensors": _blob(built.store, ref.blob_sha256, place)}
        if ref.config_sha256:
            members[f"{folder}{stem}.yaml"] = built.store.get(keys.model(ref.config_sha256))
    return stem, members


def _blob(store: BlobStore, blob: str, place: Path) -> Path:
    path = store.local_path(keys.model(blob))
    if path is not None:
        return path
    fetched = place / blob
    with store.open(keys.model(blob)) as source, fetched.open("wb") as out:
        shutil.copyfileobj(source, out, 8 * 2**20)
    return fetched
