"""Weights that a container image brings along: `python -m workers.runtime.baking FOLDER TARGET` in its build.

Each file of FOLDER goes to TARGET under the sha256 of its bytes, where a worker with `ATELIER_BAKED_MODELS`
finds it instead of fetching it.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.modelfile import read_header

IGNORED = ("README.md", ".gitkeep")
_CONFIG = ".yaml"


def bake(folder: Path, target: Path) -> list[tuple[str, str]]:
    """Move every model file of `folder` to `target`; (file name, sha256) of each. Raises ModelUnusable for a
    damaged one, InvalidRequest for one that no worker reads.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in IGNORED)
    for path in files:
        if path.suffix == ".safetensors":
            read_header(path)
        elif path.suffix != _CONFIG:
            raise InvalidRequest(
                f"{path.name} cannot be baked in: only .safetensors files and their .yaml can. "
                "Import it into a studio, which converts it, and bake what is in its store."
            )
    target.mkdir(parents=True, exist_ok=True)
    found = []
    for path in files:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        shutil.move(path, target / digest)
        (target / digest).chmod(0o444)
        found.append((path.relative_to(folder).as_posix(), digest))
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Bake, and say what."""
    parser = argparse.ArgumentParser(prog="python -m workers.runtime.baking", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args(words)
    try:
        baked = bake(given.folder, given.target)
    except AtelierError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    for name, digest in baked:
        sys.stdout.write(f"{digest} {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
