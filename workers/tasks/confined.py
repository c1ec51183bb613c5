"""The process that reads one foreign file: open both files, give up every other right, convert, say how it
went, end. Started by conversion.py, with the order as JSON on its standard input.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from atelier.contract.errors import AtelierError, ModelUnusable
from workers.tasks import torchfile
from workers.tasks.confinement import Bounds, confine, die_with_parent
from workers.tasks.contents import contents
from workers.tasks.writing import write

PICTURES = (".png", ".webp")


def main() -> None:
    """Carry out the order on standard input; the answer, one line of JSON, goes to standard output."""
    die_with_parent()
    order = json.load(sys.stdin)
    file, bounds = str(order["name"]), Bounds(**order["bounds"])
    is_picture = Path(file).suffix.lower() in PICTURES
    if is_picture:
        _pictures().prepare()
    with Path(order["source"]).open("rb") as source, Path(order["output"]).open("xb") as out:
        data = memoryview(b"")
        if os.fstat(source.fileno()).st_size:
            data = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
        confine(bounds, lambda event: _answer(_broke_out(file, event)))
        try:
            said = _convert(file, str(order["kind"]), data, out, bounds.file_bytes, picture=is_picture)
            out.flush()
        except AtelierError as error:
            said = {"error": error.body()}
        except MemoryError:
            said = {"error": _too_much(file).body()}
        except OSError as error:
            said = {"error": ModelUnusable(f"{file} could not be converted: {error.strerror}.").body()}
        _answer(said)
        os._exit(0)


def _convert(
    file: str, kind: str, data: memoryview, out: BinaryIO, room: int, *, picture: bool
) -> dict[str, Any]:
    if picture:
        source, numbers = _pictures().read(file, data)
        data = memoryview(numbers)
    else:
        source = torchfile.read(file, data)
    found = contents(file, kind, source.root)
    write(file, out, found.tensors, found.metadata, source, data, room)
    return {"tensors": len(found.tensors)}


def _pictures() -> ModuleType:
    """The reader of pictures, which brings a large library with it: loaded for them alone, and before the
    walls go up.
    """
    from workers.tasks import pictures

    return pictures


def _too_much(file: str) -> ModelUnusable:
    return ModelUnusable(
        f"{file} needs more memory to be read than any model of its size. It was left alone."
    )


def _broke_out(file: str, event: str) -> dict[str, Any]:
    error = ModelUnusable(f"{file} made its reader try {event[:60]!r}, which reading a model never needs.")
    return {"error": error.body()}


def _answer(said: dict[str, Any]) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
