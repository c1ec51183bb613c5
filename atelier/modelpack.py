"""Model archives for SageMaker's inference containers: `{name}.tar.gz` with the checkpoint, its
configuration, a VAE, and `code/` with what answers requests. The same files give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from atelier.contract.errors import Conflict, StorageFailed

Members = dict[str, Path | bytes]
"""Name in the archive -> a file, or bytes."""
_ENTRY = b"""\"\"\"What a container calls: see workers/inference/hf_entry.py beside this file.\"\"\"

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from workers.inference.hf_entry import input_fn, model_fn, output_fn, predict_fn  # noqa: E402

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
"""
_PACKAGES = ("atelier", "extensions", "workers/engine", "workers/inference", "workers/runtime")
_ROOM = 64 * 2**20
"""Bytes of the disk that stay free."""


def code() -> Members:
    """The `code/` folder: the entry, the packages it needs, and the names of those to be installed."""
    root = Path(__file__).resolve().parents[1]
    found: Members = {"code/inference.py": _ENTRY, "code/requirements.txt": _requirements()}
    for package in _PACKAGES:
        for path in (root / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"code/{path.relative_to(root).as_posix()}"] = path
    return found


def write(members: Mapping[str, Path | bytes], target: Path, *, force: bool = False) -> Path:
    """Write the archive `target`, whole or not at all. The tar is stored in gzip without compression: weights
    hardly shrink, and an endpoint unpacks it at every start. Raises Conflict where it is there and `force` is
    not given, StorageFailed where the disk has no room.
    """
    if target.exists() and not force:
        raise Conflict(f"{target} is there already. Give --force to replace it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_room(members, target.parent)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as raw:
                _write(members, raw)
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"Could not write {target}: {error.strerror or error}.") from error
    return target


def _write(members: Mapping[str, Path | bytes], raw: io.BufferedWriter) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=0, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, source in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o644, _size(source)
            if isinstance(source, bytes):
                archive.addfile(entry, io.BytesIO(source))
            else:
                with source.open("rb") as opened:
                    archive.addfile(entry, opened)


def _check_room(members: Mapping[str, Path | bytes], folder: Path) -> None:
    needed, free = sum(_size(each) for each in members.values()) + _ROOM, shutil.disk_usage(folder).free
    if needed > free:
        raise StorageFailed(
            f"The archive needs {needed >> 20} MiB and {folder} has {free >> 20} MiB free. "
            "Make room, or choose another --output."
        )


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _requirements() -> bytes:
    """What the worker needs beside its own packages, as this installation states it."""
    return "".join(sorted(f"{each}\n" for each in _stated())).encode()


def _stated() -> Iterator[str]:
    for each in metadata.requires("atelier") or []:
        name, _, condition = (part.strip() for part in each.partition(";"))
        if not condition or condition.replace("'", '"') == 'extra == "worker"':
            yield name
