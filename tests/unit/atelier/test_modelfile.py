"""Model files read without torch: damaged and lying ones are refused by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from atelier import modelfile
from atelier.contract.errors import ModelUnusable


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_a_whole_file_gives_its_tensors_and_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"w": entry(0, 4), "__metadata__": {"title": "T"}}, b"abcd")
    header = modelfile.read_header(path)
    assert header.tensors["w"].shape == (2,)
    assert header.metadata == {"title": "T"}
    assert path.read_bytes()[header.data_offset :] == b"abcd"


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"w": entry(0, 4)}, b"ab", None),
        ({"w": entry(0, 4), "v": entry(2, 6)}, b"abcdef", None),
        ({"w": entry(0, 5)}, b"abcde", None),
        ({"w": entry(0, 4, (-2,))}, b"abcd", None),
        ({"w": entry(0, 4, (2,), "F17")}, b"abcd", None),
        ({"w": {"dtype": "F16"}}, b"abcd", None),
        (["w"], b"", None),
        (b"{not json", b"", None),
        ({"w": entry(0, 4)}, b"abcd", 2**40),
    ],
)
def test_a_damaged_or_lying_header_is_refused_by_file_name(
    tmp_path: Path, header: Any, data: bytes, length: int | None
) -> None:
    path = write(tmp_path / "bad.safetensors", header, data, length=length)
    with pytest.raises(ModelUnusable, match=r"bad\.safetensors"):
        modelfile.read_header(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnusable, match=r"empty\.safetensors"):
        modelfile.read_header(tmp_path / "empty.safetensors")


def test_hashes_are_the_peers(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "m").write_bytes(content)
    found = modelfile.hashes(tmp_path / "m")
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.short == found.sha256[:10]
    assert found.legacy == hashlib.sha256(content[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]


def test_the_recorded_checkpoint_has_its_recorded_hash_and_family(golden: Path) -> None:
    path = golden / "models" / "oracle.safetensors"
    assert modelfile.hashes(path).short == "cae32bd05b"
    assert modelfile.family(modelfile.read_header(path)) == "sd1"


def test_a_file_that_is_no_checkpoint_has_no_family(golden: Path) -> None:
    assert modelfile.family(modelfile.read_header(golden / "models" / "lora_a.safetensors")) is None
