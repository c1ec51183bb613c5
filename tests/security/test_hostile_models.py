"""Model files made to do harm: none runs anything, each is refused in words that name it."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelKind
from atelier.modelfile import read_header
from tests.pickling import call, legacy, name, number, program, storage, tensor, text, zipped
from workers.tasks import torchfile
from workers.tasks.contents import contents
from workers.tasks.conversion import convert

RUN = "import pathlib; pathlib.Path('CANARY').touch()"
SHELL = text("touch CANARY")
CODE = text(RUN)
_REBUILD = name("torch._tensor", "_rebuild_from_type_v2")


def _eval(source: bytes) -> bytes:
    return call("builtins", "eval", source)


PICKLES: dict[str, bytes] = {
    "os.system by REDUCE": program(call("os", "system", SHELL)),
    "posix.system by REDUCE": program(call("posix", "system", SHELL)),
    "nt.system by REDUCE": program(call("nt", "system", SHELL)),
    "os.system by INST": program(b"(" + SHELL + b"ios\nsystem\n"),
    "os.system by OBJ": program(b"(" + name("os", "system") + SHELL + b"o"),
    "subprocess.Popen by NEWOBJ": program(name("subprocess", "Popen") + b"(" + SHELL + b"t\x81"),
    "subprocess.Popen by NEWOBJ_EX": program(
        name("subprocess", "Popen") + b"(" + SHELL + b"t}" + text("shell") + b"\x88s\x92", protocol=4
    ),
    "a dotted name by STACK_GLOBAL": program(
        text("collections") + text("OrderedDict.__class__") + b"\x93)R", protocol=4
    ),
    "os.system under torch": program(text("torch") + text("serialization.os.system") + b"\x93", protocol=4),
    "a name that is no text": program(number(1) + text("system") + b"\x93", protocol=4),
    "builtins.eval": program(_eval(CODE)),
    "builtins.exec within eval": program(_eval(text(f"exec({RUN!r})"))),
    "__builtin__.exec of protocol 0": f"c__builtin__\nexec\n(V{RUN}\ntR.".encode(),
    "builtins.getattr on a known class": program(
        call("builtins", "getattr", name("collections", "OrderedDict"), text("__subclasses__"))
    ),
    "importlib.import_module": program(call("importlib", "import_module", text("antigravity"))),
    "ctypes.CDLL": program(call("ctypes", "CDLL", text("libc.so.6"))),
    "torch.load": program(call("torch", "load", text("CANARY"))),
    "torch.storage._load_from_bytes": program(call("torch.storage", "_load_from_bytes", b"C\x01.")),
    "torch.hub.load": program(call("torch.hub", "load", text("x/y"))),
    "runpy": program(call("runpy", "_run_code", CODE, b"}")),
    "pickle.loads": program(call("pickle", "loads", b"C\x10cos\nsystem\n(tR..")),
    "numpy.load": program(call("numpy", "load", text("CANARY"), b"\x88", b"\x88")),
    "operator.attrgetter": program(call("operator", "attrgetter", text("system"))),
    "functools.partial": program(call("functools", "partial", name("os", "system"), SHELL)),
    "BUILD with __setstate__": program(
        call("argparse", "Namespace")
        + b"}"
        + text("__setstate__")
        + name("os", "system")
        + b"sb"
        + SHELL
        + b"b"
    ),
    "BUILD on a name": program(name("collections", "OrderedDict") + b"}" + text("__reduce__") + b"Nsb"),
    "_reconstructor of os": program(call("copyreg", "_reconstructor", name("os", "_wrap_close"), b"N", b"N")),
    "_rebuild_from_type_v2 of eval": program(
        call(
            "torch._tensor", "_rebuild_from_type_v2", name("builtins", "eval"), b"N", b"(" + CODE + b"t", b"}"
        )
    ),
    "_rebuild_from_type_v2 of text": program(
        call("torch._tensor", "_rebuild_from_type_v2", text("eval"), b"N", b"(" + CODE + b"t", b"}")
    ),
    "an extension code (EXT1)": program(b"\x82\x01"),
    "an extension code (EXT2)": program(b"\x83\x01\x00"),
    "an extension code (EXT4)": program(b"\x84\x01\x00\x00\x00"),
    "a storage named by text": program(b"Pos.system\n", protocol=0),
    "a storage of a stranger": program(
        b"(" + text("storage") + name("os", "system") + text("0") * 2 + b"K\x01tQ"
    ),
    "a storage that is a module": program(
        b"(" + text("module") + name("torch", "Tensor") + text("x") * 2 + b"tQ"
    ),
    "a storage in two sizes": program(b"(" + storage("0", 1) + storage("0", 2) + b"t"),
    "an out-of-band buffer": program(b"\x97", protocol=5),
    "a protocol of the future": program(b"N", protocol=9),
    "unknown instructions": program(b"\xff\xfe"),
    "a whole number of a gigabyte": program(b"\x8b\x00\x00\x00\x40"),
    "a whole number in a line": b"L" + b"9" * 60_000 + b"L\n.",
    "a text longer than the file": program(b"X\xff\xff\xff\xff"),
    "a text of 2^63 bytes": program(b"\x8d" + b"\xff" * 7 + b"\x7f", protocol=4),
    "a frame longer than the file": program(b"\x95" + b"\xff" * 8, protocol=4),
    "a memo of nothing": program(b"h\x07"),
    "a billion laughs": program(
        b")q\x00" + b"".join(b"(" + b"h\x00" * 10 + b"tq\x00" for _ in range(40)) + b"}h\x00Ns"
    ),
    "a rebuild within a rebuild without end": program(
        _REBUILD + (b"(" + _REBUILD + b"N") * 3_000 + b"(" + _REBUILD + b"N)Nt" + b"Nt" * 3_000 + b"R"
    ),
    "a list copied again and again": program(
        b"](" + b"N" * 100_000 + b"eq\x00" + (name("builtins", "list") + b"h\x00\x85R0") * 300
    ),
    "half a character as a name": program(b"X\x03\x00\x00\x00\xed\xa0\x80" + text("x") + b"\x93", protocol=4),
    "half a character as a tensor's name": program(
        b"}X\x03\x00\x00\x00\xed\xa0\x80" + tensor("0", 4, (2,), (1,)) + b"s"
    ),
    "half an escape": program(b"V" + b"\\u" * 20_000 + b"\n"),
    "a storage that is its own name": program(b"]q\x00h\x00a\x85Q"),
    "a class called for a number": program(name("builtins", "int") + text("5") + b"\x85R"),
    "a state dict in itself": program(b"}q\x00" + text("state_dict") + b"h\x00s"),
    "a tensor named as the metadata": program(
        b"}" + text("__metadata__") + tensor("0", 4, (2,), (1,)) + b"s"
    ),
    "a tensor with a name of pages": program(b"}" + text("k" * 2_000) + tensor("0", 4, (2,), (1,)) + b"s"),
    "nesting without end": program(b"(" * 200_000),
    "a table that is its own key": program(b"}q\x00h\x00Ns"),
    "a list with itself as key": program(b"}]q\x00h\x00aNs"),
    "an empty stack": program(b"0"),
    "a tuple of nothing": program(b"\x87"),
    "a call of a number": program(b"K\x07)R"),
    "a call with a list": program(name("collections", "OrderedDict") + b"]R"),
    "an append to a text": program(text("x") + b"Na"),
    "no end": b"\x80\x02}",
    "nothing at all": b"",
    "a tensor beyond its storage": program(tensor("0", 4, (2, 3), (3, 1))),
    "a tensor with an offset beyond": program(tensor("0", 4, (1,), (1,), offset=4)),
    "a tensor with a negative stride": program(tensor("0", 4, (2,), (-1,))),
    "a tensor of 2^60 elements": program(tensor("0", 4, (2**30, 2**30), (0, 0))),
    "a tensor in 40 dimensions": program(tensor("0", 4, (1,) * 40, (1,) * 40)),
    "a tensor of no storage": program(
        call("torch._utils", "_rebuild_tensor_v2", text("0"), b"K\x00", b")", b")", b"\x89", b"N")
    ),
    "a tensor from too few words": program(call("torch._utils", "_rebuild_tensor_v2", b"N")),
    "complex numbers": program(storage("0", 4, "ComplexFloatStorage")),
    "quantised numbers": program(storage("0", 4, "QInt8Storage")),
    "a state dict with a bomb in its metadata": program(
        call("collections", "OrderedDict") + b"}" + text("_metadata") + call("os", "system", SHELL) + b"sb"
    ),
    "a callback with a bomb in it": program(
        call("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", call("os", "system", SHELL))
    ),
}
WATCHED = (
    "import",
    "exec",
    "compile",
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "shutil.",
    "_thread.start_new_thread",
)
_seen: list[str] | None = None
_reader = 0


def _watch(event: str, _arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event.startswith(WATCHED) and threading.get_ident() == _reader:
        _seen.append(event)


sys.addaudithook(_watch)


@pytest.fixture
def events() -> Iterator[list[str]]:
    """What this thread's code was made to do, as Python's audit hook tells it: a studio that other tests
    share works in threads of the same process. A thread that were started would show itself.
    """
    global _seen, _reader
    _seen, _reader = [], threading.get_ident()
    yield _seen
    _seen = None


def refused(file: str, data: bytes) -> str:
    """The sentence by which a file is refused."""
    with pytest.raises(ModelUnusable) as caught:
        contents(file, "checkpoint", torchfile.read(file, memoryview(data)).root)
    return caught.value.message


@pytest.mark.parametrize("wrap", [legacy, zipped])
def test_no_hostile_pickle_does_anything_and_each_is_refused_by_name(
    wrap: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(PICKLES) >= 20
    files = {case: wrap(pickle) for case, pickle in PICKLES.items()}
    events.clear()
    said = {case: refused("evil.ckpt", data) for case, data in files.items()}
    assert events == []
    assert [case for case, message in said.items() if "evil.ckpt" not in message] == []
    assert [case for case, message in said.items() if len(message) > 400] == []
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_names_what_the_file_asked_for() -> None:
    assert "'os.system'" in refused("evil.ckpt", zipped(PICKLES["os.system by REDUCE"]))
    assert "'builtins.eval'" in refused("evil.pt", legacy(PICKLES["builtins.eval"]))


def test_the_canary_sings_where_python_itself_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(PICKLES["os.system by REDUCE"])
    script = "import pickle; pickle.load(open('evil', 'rb'))"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "CANARY").exists()


def _stored(*entries: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as out:
        for path, data in entries:
            out.writestr(zipfile.ZipInfo(path), data)
    return made.getvalue()


GOOD = program(b"}" + text("w") + tensor("0", 1, (1,), (1,)) + b"s")
WHOLE = zipped(GOOD, {"0": b"\0\0\x80\x3f"})


def _packed() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data.pkl", GOOD)
        out.writestr("archive/data/0", bytes(10_000_000))
    return made.getvalue()


def _linked() -> bytes:
    info = zipfile.ZipInfo("archive/data/0")
    info.external_attr = 0o120777 << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as out:
        out.writestr("archive/data.pkl", GOOD)
        out.writestr(info, b"/etc")
    return made.getvalue()


def _patched(old: bytes, new: bytes, count: int) -> bytes:
    assert WHOLE.count(old) >= 1
    return WHOLE.replace(old, new, count)


def _overlapping() -> bytes:
    """The entry of the storage points at the pickle's bytes."""
    data = bytearray(WHOLE)
    first = data.index(b"PK\x01\x02")
    entry = data.index(b"PK\x01\x02", data.index(b"archive/data/0", first) - 46)
    struct.pack_into("<I", data, entry + 42, 0)
    return bytes(data)


ARCHIVES: dict[str, bytes] = {
    "two data.pkl": _stored(("a/data.pkl", GOOD), ("b/data.pkl", GOOD), ("a/data/0", b"1234")),
    "no data.pkl": _stored(("archive/data/0", b"1234")),
    "a path that leads out": _stored(("archive/data.pkl", GOOD), ("archive/../../evil", b"1")),
    "an absolute path": _stored(("archive/data.pkl", GOOD), ("/etc/passwd", b"1")),
    "a backslash in a path": _stored(("archive/data.pkl", GOOD), ("archive\\..\\x", b"1")),
    "a symbolic link": _linked(),
    "compressed entries": _packed(),
    "a missing storage": zipped(GOOD),
    "a short storage": zipped(GOOD, {"0": b"12"}),
    "cut off": WHOLE[:-10],
    "something behind the end": WHOLE + b"#!/bin/sh\n",
    "two archives in one": WHOLE + WHOLE,
    "a lying local header": _patched(b"archive/data/0", b"archive/data/9", 1),
    "one entry on another's bytes": _overlapping(),
    "a directory beyond the end": WHOLE[:-6] + b"\xff\xff\xff\x7f" + WHOLE[-2:],
    "a program of TorchScript": _stored(
        ("a/data.pkl", GOOD), ("a/constants.pkl", b"."), ("a/data/0", b"1234")
    ),
}
OTHERS: dict[str, bytes] = {
    "a tar archive": b"a" * 257 + b"ustar" + bytes(300),
    "a web page": b"<!DOCTYPE html><html>404</html>",
    "a pickle that torch never saw": program(text("hello")),
    "an old file cut in its storage": legacy(GOOD, {"0": b"\0\0\x80\x3f"})[:-2],
    "an old file with too long a storage": legacy(GOOD, {"0": bytes(8)}),
    "an old file with a storage for nothing": legacy(GOOD, {"0": bytes(4), "1": bytes(4)}),
    "an old file without its storage": legacy(GOOD),
    "half a directory": WHOLE[: WHOLE.index(b"PK\x01\x02") + 20],
}


def test_no_archive_with_games_in_it_is_read(tmp_path: Path, events: list[str]) -> None:
    found = contents("good.ckpt", "checkpoint", torchfile.read("good.ckpt", memoryview(WHOLE)).root)
    assert list(found.tensors) == ["w"]
    events.clear()
    said = {case: refused("evil.ckpt", data) for case, data in {**ARCHIVES, **OTHERS}.items()}
    assert events == []
    assert [case for case, message in said.items() if "evil.ckpt" not in message] == []


def test_an_archive_with_an_entry_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = _stored(("a/data.pkl", GOOD), ("a/data.pkl", PICKLES["builtins.eval"]), ("a/data/0", b"1234"))
    assert "twice" in refused("evil.ckpt", data)


def test_tensors_that_unfold_to_far_more_than_the_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.pt").write_bytes(
        zipped(program(b"}" + text("w") + tensor("0", 1, (2**20, 2**10), (0, 0)) + b"s"), {"0": bytes(4)})
    )
    with pytest.raises(ModelUnusable, match=r"bomb\.pt would unfold"):
        convert(tmp_path / "bomb.pt", tmp_path / "out", ModelKind.CHECKPOINT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["os.system by REDUCE", "builtins.exec within eval", "a billion laughs"])
def test_the_confined_process_refuses_them_too_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    (tmp_path / "evil.ckpt").write_bytes(legacy(PICKLES[case]))
    with pytest.raises(ModelUnusable, match=r"evil\.ckpt"):
        convert(tmp_path / "evil.ckpt", tmp_path / "out", ModelKind.CHECKPOINT)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


def test_a_reader_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "slow.ckpt").write_bytes(WHOLE)
    with pytest.raises(ModelUnusable, match=r"slow\.ckpt could not be converted within"):
        convert(tmp_path / "slow.ckpt", tmp_path / "out", ModelKind.CHECKPOINT, seconds=0.001)


CONFINED = """
import ctypes, os, socket, subprocess, sys, threading
from workers.tasks.confinement import Bounds, confine
library = ctypes.CDLL(None)
confine(Bounds(2**31, 20, 2**20), lambda event: os.write(1, event.encode()))
{attempt}
os.write(1, b"survived")
"""
ATTEMPTS = {
    "a command": "os.system('touch CANARY')",
    "a child": "os.fork()",
    "a program": "subprocess.Popen(['touch', 'CANARY'])",
    "a socket": "socket.socket()",
    "a file to write": "open('CANARY', 'w')",
    "a file to read": "open('/etc/passwd')",
    "a module": "import antigravity",
    "code": "exec('1')",
    "a file taken away": "os.remove('kept')",
    "a socket behind the interpreter's back": "library.socket(2, 1, 0)",
    "a program behind the interpreter's back": "library.execv(b'/bin/true', None)",
    "a file that grows without end": "[os.write(3, bytes(2**20)) for _ in range(3)]",
}


@pytest.mark.parametrize("attempt", sorted(ATTEMPTS))
def test_a_confined_process_ends_when_it_tries_anything_else(attempt: str, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    script = CONFINED.format(attempt=ATTEMPTS[attempt])
    with (tmp_path / "grown").open("wb") as grown:
        done = subprocess.run(
            ["sh", "-c", 'exec "$0" -c "$1" 3>&"$2"', sys.executable, script, str(grown.fileno())],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            pass_fds=(grown.fileno(),),
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode != 0
    assert b"survived" not in done.stdout
    assert (tmp_path / "kept").exists()
    assert not (tmp_path / "CANARY").exists()
    assert (tmp_path / "grown").stat().st_size <= 2**20


def _header(text_of: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(text_of) if length is None else length).to_bytes(8, "little") + text_of + data


def _one(dtype: object, shape: object, offsets: object, data: bytes = bytes(16)) -> bytes:
    told = {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    return _header(json.dumps(told).encode(), data)


_TWO = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
}
SAFETENSORS: dict[str, bytes] = {
    "nothing": b"",
    "eight bytes": bytes(8),
    "a header beyond the file": _header(b"{}", length=2**40),
    "a header of 2^64 bytes": _header(b"{}", length=2**64 - 1),
    "cut off in the header": _one("F32", [4], [0, 16])[:20],
    "cut off in a tensor": _one("F32", [4], [0, 16])[:-1],
    "something behind the tensors": _one("F32", [4], [0, 16]) + b"#!/bin/sh",
    "a hole between the tensors": _one("F32", [2], [8, 16]),
    "no JSON": _header(b"this is no JSON at all"),
    "no UTF-8": _header(b'{"\xff\xfe": 1}'),
    "no table": _header(b'["w", "x"]'),
    "a number": _header(b"12345678"),
    "deep JSON": _header(b"[" * 200_000),
    "a key twice": _header(
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "overlapping tensors": _header(json.dumps(_TWO).encode(), bytes(12)),
    "offsets the wrong way round": _one("F32", [4], [16, 0]),
    "a negative offset": _one("F32", [4], [-16, 0]),
    "three offsets": _one("F32", [4], [0, 16, 32]),
    "fractions": _one("F32", [4.5], [0, 16]),
    "booleans": _one("U8", [True], [0, 1], b"1"),
    "sides as text": _one("F32", ["4"], [0, 16]),
    "a negative side": _one("F32", [-2, -2], [0, 16]),
    "sides that overflow": _one("F32", [2**32, 2**32], [0, 0], b""),
    "a hundred dimensions": _one("F32", [1] * 100, [0, 4], bytes(4)),
    "an unknown type": _one("F33", [4], [0, 16]),
    "a type that is none": _one(None, [4], [0, 16]),
    "no type": _header(b'{"w":{"shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "metadata that is no table": _header(b'{"__metadata__": 7}'),
    "metadata of numbers": _header(b'{"__metadata__": {"a": 7}}'),
}


@pytest.mark.parametrize("case", sorted(SAFETENSORS))
def test_a_safetensors_file_that_lies_is_refused_by_name(case: str, tmp_path: Path) -> None:
    path = tmp_path / "lies.safetensors"
    path.write_bytes(SAFETENSORS[case])
    with pytest.raises(ModelUnusable, match=r"lies\.safetensors") as caught:
        read_header(path)
    assert len(caught.value.message) < 400
