"""The two forms in which torch.save has written files: a zip archive since 1.6, a row of pickles before.

Read without torch. Storages stay where they are in the file; what is given is the tree of the pickle and
where each storage's bytes lie.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atelier.contract.errors import ModelUnusable
from workers.tasks import archive
from workers.tasks.pickles import MAX_PAYLOAD, Interpreter
from workers.tasks.standins import SIZES, Known, Malformed, Storage, whole

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_TAR_MARK = slice(257, 262)
_TAR = b"ustar"


@dataclass
class TorchFile:
    """What a file holds: the `root` of its pickle, and for each storage's key its (start, end) in the file.

    `big_endian` says how the numbers are written.
    """

    root: Any
    places: dict[str, tuple[int, int]]
    big_endian: bool = False


@dataclass
class _Storages:
    """The storages that a pickle points to, by key: two that contradict each other are refused."""

    known: dict[str, Storage] = field(default_factory=dict)

    def __call__(self, identity: Any) -> Storage | Known:
        """A persistent id ("storage", type, key, location, elements[, view]) as its storage."""
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module":
            return _class_of(identity[1])
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise Malformed("it points to something that is no storage")
        kind, key, count = identity[1], identity[2], whole(identity[4])
        if not isinstance(kind, Known) or type(key) is not str or len(key) > 200:
            raise Malformed("it points to something that is no storage")
        if kind.dtype is None and not kind.name.endswith("UntypedStorage"):
            raise Malformed(f"it has a storage of {kind.name[:60]}, which safetensors cannot hold")
        if not kind.name.endswith("Storage"):
            raise Malformed("it points to something that is no storage")
        found = self.known.setdefault(key, Storage(key, kind.dtype, count))
        if (found.dtype, found.count) != (kind.dtype, count):
            raise Malformed("it describes one storage in two ways")
        if len(identity) == 6 and identity[5] is not None:
            return _viewed(found, identity[5])
        return found


def _class_of(given: Any) -> Known:
    """("module", class, source file, source): how the old form names a class, with its text; that is left."""
    if not isinstance(given, Known):
        raise Malformed("it names a class that is none")
    return given


def _viewed(storage: Storage, view: Any) -> Storage:
    """(key, offset, elements): how torch before 0.4 shared storages."""
    if type(view) is not tuple or len(view) != 3:
        raise Malformed("it has a view of a storage that is none")
    offset, count = whole(view[1]), whole(view[2])
    if offset + count > storage.count:
        raise Malformed("it has a view beyond its storage")
    return Storage(storage.key, storage.dtype, count, storage.offset + offset)


def read(file: str, data: memoryview) -> TorchFile:
    """What the torch file `data`, called `file`, holds. Raises ModelUnusable, naming it."""
    try:
        if bytes(data[:4]) == archive.SIGNATURE:
            return _zipped(file, data)
        if bytes(data[_TAR_MARK]) == _TAR:
            raise ModelUnusable(
                f"{file} is a tar archive, as torch wrote them before version 0.2. Such files are not read: "
                "load it with the program that made it and save it as safetensors."
            )
        if bytes(data[:1]) != b"\x80":
            raise ModelUnusable(
                f"{file} is no file that torch has saved: neither a zip archive nor a pickle. It may be "
                "damaged, or a web page that was saved in its place."
            )
        return _rowed(file, data)
    except Malformed as error:
        raise ModelUnusable(f"{file} is damaged or made to deceive: {error}.") from error


def _zipped(file: str, data: memoryview) -> TorchFile:
    found = archive.entries(data)
    roots = [name for name in found if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") > 1:
        raise Malformed("it has not exactly one data.pkl")
    base = roots[0].removesuffix("data.pkl")
    if f"{base}constants.pkl" in found:
        raise ModelUnusable(f"{file} is a TorchScript program and not a model's weights.")
    root = found[roots[0]]
    if root.end - root.start > MAX_PAYLOAD:
        raise Malformed("its data.pkl is larger than that of any model")
    storages = _Storages()
    interpreter = Interpreter(file, data[: root.end], root.start, storages)
    tree = interpreter.run()
    order = found.get(f"{base}byteorder")
    big = order is not None and bytes(data[order.start : min(order.end, order.start + 8)]) == b"big"
    places = {}
    for key, storage in storages.known.items():
        entry = found.get(f"{base}data/{key}")
        if entry is None:
            raise Malformed(f"its storage {key[:40]!r} is missing")
        _check_size(key, storage, entry.end - entry.start)
        places[key] = (entry.start, entry.end)
    return TorchFile(tree, places, big)


def _check_size(key: str, storage: Storage, count: int) -> None:
    if count < storage.count * (SIZES[storage.dtype] if storage.dtype else 1):
        raise Malformed(f"its storage {key[:40]!r} has fewer bytes than its tensors need")


def _rowed(file: str, data: memoryview) -> TorchFile:
    """Magic number, protocol, the writer's machine, the tree, the keys, and then each storage in order of
    the keys: elements as 8 bytes, then their bytes.
    """
    place = 0

    def following(persistent: Callable[[Any], Any] | None = None) -> Any:
        nonlocal place
        interpreter = Interpreter(file, data, place, persistent)
        value = interpreter.run()
        place = interpreter.place
        return value

    if following() != LEGACY_MAGIC:
        raise ModelUnusable(
            f"{file} is a pickle, but none that torch has saved: there are no tensors in it that could be "
            "taken out. Ask for it as safetensors."
        )
    if following() != LEGACY_PROTOCOL:
        raise ModelUnusable(f"{file} was saved in a form of torch that is not known. Save it as safetensors.")
    machine = following()
    big = isinstance(machine, dict) and machine.get("little_endian") is False
    storages = _Storages()
    tree = following(storages)
    keys = following()
    if type(keys) is not list or len(set(map(type, keys)) - {str}) or len(set(keys)) != len(keys):
        raise Malformed("its list of storages is none")
    places = _places(data, place, keys, storages.known, big_endian=big)
    missing = sorted(set(storages.known) - set(places))
    if missing:
        raise Malformed(f"its storage {missing[0][:40]!r} is missing")
    return TorchFile(tree, places, big)


def _places(
    data: memoryview, place: int, keys: list[str], known: dict[str, Storage], *, big_endian: bool
) -> dict[str, tuple[int, int]]:
    places = {}
    for key in keys:
        storage = known.get(key)
        if storage is None:
            raise Malformed(f"it lists the storage {key[:40]!r}, which nothing needs")
        if place + 8 > len(data):
            raise Malformed("it is cut off")
        (count,) = struct.unpack_from(">Q" if big_endian else "<Q", data, place)
        end = place + 8 + count * (SIZES[storage.dtype] if storage.dtype else 1)
        if count != storage.count or end > len(data):
            raise Malformed(f"its storage {key[:40]!r} is cut off or has another length than stated")
        places[key] = (place + 8, end)
        place = end
    return places
