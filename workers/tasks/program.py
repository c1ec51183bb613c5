"""One task: `python -m workers.tasks ACTION --store URL --task ID --source KEY|file:///path ...`.

What it made goes to the blob store, what it found beside it as the last thing it writes; whoever started it
reads both there. Exits with 0 where a result was written, also one that tells of a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from atelier import logs, redaction
from atelier.contract import keys
from atelier.contract.errors import AtelierError, InternalError, InvalidRequest, NotFound
from atelier.contract.models import ModelKind
from atelier.modelfile import hashes
from atelier.processes import exit_with_parent
from atelier.storage.base import BlobStore
from atelier.storage.opening import open_store
from workers.tasks.conversion import SECONDS, convert

log = logging.getLogger(__name__)
ACTIONS = ("convert", "folder", "hash", "import", "detect")


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    exit_with_parent()
    given = _parser().parse_args(words)
    logs.configure("task", given.log_level, given.log_format)
    store = open_store(given.store)
    with tempfile.TemporaryDirectory(dir=given.workspace, prefix="task-") as place:
        try:
            said: dict[str, Any] = {"outcome": _done(given, store, Path(place))}
        except AtelierError as error:
            log.warning("%s: %s", given.action, error.message)
            said = {"error": error.body()}
        except Exception:
            log.exception("%s failed", given.action)
            said = {"error": InternalError(f"The task {given.action} failed. Its log says why.").body()}
    store.put(keys.task_result(given.task), json.dumps(said).encode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workers.tasks", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--store", required=True, help="URL of the blob store")
    parser.add_argument("--task", required=True, help="the task's id, under which it writes")
    parser.add_argument(
        "--source", required=True, help="a blob key, or file:///path; of an import its order, BLOB#HEX"
    )
    parser.add_argument("--name", default="", help="what messages call the file")
    parser.add_argument("--kind", choices=[kind.value for kind in ModelKind], default="checkpoint")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long a conversion may take")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-format", choices=("json", "text"), help="without it text at a terminal")
    parser.add_argument("--workspace", type=Path, help="a folder for intermediate files")
    return parser


def _done(given: argparse.Namespace, store: BlobStore, place: Path) -> dict[str, Any]:
    if given.action == "import":
        from workers.tasks import importing, orders  # what fetches is loaded for this alone

        order = orders.opened(store, given.source)
        redaction.hide(order.token)
        tell = orders.Telling(store, given.task)
        return importing.import_model(order, store, place, tell).model_dump(mode="json")
    source = _local(store, given.source, place)
    name = given.name or source.name
    if given.action == "hash":
        found = hashes(source)
        return {"sha256": found.sha256, "legacy": found.legacy, "size": source.stat().st_size}
    if given.action == "detect":
        from workers.tasks import detection  # brings OpenCV, which no other task needs

        drawn = place / "map.png"
        detection.detect(source.read_bytes(), drawn, store, place)
        store.put(keys.task_output(given.task), drawn)
        return {"size": drawn.stat().st_size}
    output = place / "output.safetensors"
    if given.action == "folder":
        from workers.tasks import folders  # brings torch, which no other task needs

        folders.as_one_file(source, output, name, place)
    else:
        convert(source, output, ModelKind(given.kind), name=name, seconds=given.seconds)
    store.put(keys.task_output(given.task), output)
    with output.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return {"sha256": digest, "size": output.stat().st_size}


def _local(store: BlobStore, source: str, place: Path) -> Path:
    """The file or folder named `source` on this machine; a blob that is elsewhere is fetched."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        if not path.exists():
            raise NotFound(f"There is no file {path}.")
        return path
    if parts.scheme:
        raise InvalidRequest(f"Tasks read from the store or from this machine, not from {parts.scheme}:.")
    here = store.local_path(source)
    if here is not None:
        return here
    fetched = place / "source"
    with store.open(source) as stored, fetched.open("wb") as out:
        shutil.copyfileobj(stored, out, 8 * 2**20)
    return fetched
