"""Foreign files and what they become: the numbers are those that torch reads, the forms those agreed on."""

from __future__ import annotations

import base64
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors import safe_open

from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelKind
from tests.pickling import call, legacy, name, program, tensor, text, zipped
from workers.tasks import pictures, torchfile
from workers.tasks.contents import contents
from workers.tasks.conversion import convert
from workers.tasks.standins import Tensor
from workers.tasks.writing import write

Read = tuple[dict[str, torch.Tensor], dict[str, str]]


def here(path: Path, kind: ModelKind = ModelKind.CHECKPOINT) -> Read:
    """The conversion of a file, made in this process."""
    data, out = memoryview(path.read_bytes()), path.with_suffix(".converted")
    if path.suffix in (".png", ".webp"):
        source, numbers = pictures.read(path.name, data)
        data = memoryview(numbers)
    else:
        source = torchfile.read(path.name, data)
    found = contents(path.name, kind.value, source.root)
    with out.open("wb") as file:
        write(path.name, file, found.tensors, found.metadata, source, data, 2**24)
    return read(out)


def read(path: Path) -> Read:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def saved(path: Path, value: Any, *, new: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=new)
    return path


def weights() -> OrderedDict[str, torch.Tensor]:
    """Tensors of every type, and every way to look at a storage."""
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    found = OrderedDict((str(kind), torch.arange(-3, 5).to(kind)) for kind in TYPES)
    found |= {
        "whole": base,
        "row": base[1],
        "transposed": base.permute(2, 0, 1),
        "stepped": base[:, ::2, 1:4],
        "expanded": torch.tensor([[7.0]]).expand(3, 2),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    found._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return found


TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


@pytest.mark.parametrize("new", [True, False])
def test_every_tensor_comes_out_as_torch_reads_it(tmp_path: Path, new: bool) -> None:
    wanted = weights()
    trainer = {"epoch": 3, "optimizer_states": [{"lr": 0.1, "exp_avg": torch.ones(9)}], "callbacks": {}}
    found, metadata = here(saved(tmp_path / "a.ckpt", {"state_dict": wanted, **trainer}, new=new))
    assert metadata == {"format": "pt"}
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value.detach()), key


def test_a_file_of_a_big_endian_machine_has_its_numbers_turned(tmp_path: Path) -> None:
    pickle = program(b"}" + text("w") + tensor("0", 2, (2,), (1,)) + b"s")
    numbers = np.array([1.5, -2.0], dtype=">f4").tobytes()
    (tmp_path / "big.pt").write_bytes(zipped(pickle, {"0": numbers}, order="big"))
    assert here(tmp_path / "big.pt")[0]["w"].tolist() == [1.5, -2.0]


def test_training_leftovers_are_dropped_and_wrappers_opened(tmp_path: Path) -> None:
    inner = {"w": torch.ones(1), "model_ema.w": torch.zeros(1), "loss.logvar": torch.zeros(1)}
    assert set(here(saved(tmp_path / "vae.pt", {"state_dict": inner}))[0]) == {"w"}
    assert set(here(saved(tmp_path / "up.pth", {"params_ema": {"w": torch.ones(1)}}))[0]) == {"w"}


def test_lightning_and_omegaconf_leave_their_classes_behind(tmp_path: Path) -> None:
    callback = name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    config = call("copyreg", "_reconstructor", name("omegaconf.dictconfig", "DictConfig"), *PLAIN_OBJECT)
    number = call("numpy.core.multiarray", "scalar", call("numpy", "dtype", text("f8")), b"C\x08" + bytes(8))
    parts = b"}" + text("callbacks") + b"}" + callback + b"}ss" + text("hyper_parameters") + config + b"}bs"
    parts += text("best") + number + b"s" + text("state_dict") + b"}" + text("w")
    data = legacy(program(parts + tensor("0", 1, (1,), (1,)) + b"ss"), {"0": bytes(4)})
    (tmp_path / "trained.ckpt").write_bytes(data)
    assert list(here(tmp_path / "trained.ckpt")[0]) == ["w"]


PLAIN_OBJECT = (name("__builtin__", "object"), b"N")


def test_the_confined_process_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", weights())
    convert(path, tmp_path / "first", ModelKind.CHECKPOINT)
    here(path)
    assert (tmp_path / "first").read_bytes() == path.with_suffix(".converted").read_bytes()
    with pytest.raises(FileExistsError):
        (tmp_path / "first").open("xb")


def test_recorded_embeddings_and_hypernetworks_have_the_agreed_forms(golden: Path, tmp_path: Path) -> None:
    for file, kind in (("tiny-ti.pt", ModelKind.EMBEDDING), ("tiny-hn.pt", ModelKind.HYPERNETWORK)):
        (tmp_path / file).write_bytes((golden / "models" / file).read_bytes())
        convert(tmp_path / file, tmp_path / f"{file}.out", kind)
    vectors, said = read(tmp_path / "tiny-ti.pt.out")
    theirs = torch.load(golden / "models" / "tiny-ti.pt", weights_only=True)
    assert torch.equal(vectors["emb_params"], theirs["string_to_param"]["*"])
    assert said == {"name": "tiny-ti", "step": "100"}
    layers, said = read(tmp_path / "tiny-hn.pt.out")
    theirs = torch.load(golden / "models" / "tiny-hn.pt", weights_only=True)
    assert set(layers) == {
        f"{width}.{side}.{key}"
        for width, pair in theirs.items()
        if isinstance(width, int)
        for side, part in zip("kv", pair, strict=True)
        for key in part
    }
    assert torch.equal(layers["48.v.linear.1.weight"], theirs[48][1]["linear.1.weight"])
    assert json.loads(said["hypernetwork"])["layer_structure"] == [1, 2, 1]


def test_the_oldest_hypernetworks_layers_get_their_new_names(tmp_path: Path) -> None:
    layers = {"linear1.weight": torch.ones(2, 1), "linear2.bias": torch.ones(1)}
    path = saved(tmp_path / "old.pt", {768: (layers, layers), "step": 5, "activation_func": "relu"})
    found, said = here(path, ModelKind.HYPERNETWORK)
    assert set(found) == {f"768.{side}.linear.{key}" for side in "kv" for key in ("0.weight", "1.bias")}
    assert json.loads(said["hypernetwork"]) == {"activation_func": "relu", "step": 5}


VECTORS = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7
EMBEDDINGS: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "the peer's": (
        {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}},
        {"emb_params": (2, 3)},
    ),
    "as a ParameterDict": (
        {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)})},
        {"emb_params": (2, 3)},
    ),
    "the library's": ({"<cat>": VECTORS[0].clone()}, {"emb_params": (1, 3)}),
    "kohya's": ({"emb_params": VECTORS}, {"emb_params": (2, 3)}),
    "SDXL's": ({"clip_l": VECTORS, "clip_g": torch.ones(2, 5)}, {"clip_l": (2, 3), "clip_g": (2, 5)}),
}


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("case", sorted(EMBEDDINGS))
def test_every_form_of_embedding_becomes_one_of_two(case: str, new: bool, tmp_path: Path) -> None:
    value, shapes = EMBEDDINGS[case]
    found, _ = here(saved(tmp_path / "cat.pt", value, new=new), ModelKind.EMBEDDING)
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == shapes
    first = next(iter(found.values())) if "clip_l" not in found else found["clip_l"]
    assert torch.equal(first, VECTORS[: first.shape[0]])


def embedding_json() -> bytes:
    param = {"*": {"TORCHTENSOR": VECTORS.tolist()}}
    return json.dumps(
        {"string_to_token": {"*": 265}, "string_to_param": param, "name": "cat", "step": 9}
    ).encode()


def test_an_embedding_in_a_pictures_text_is_read(tmp_path: Path) -> None:
    said = PngImagePlugin.PngInfo()
    said.add_text("sd-ti-embedding", base64.b64encode(embedding_json()).decode())
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png", pnginfo=said)
    convert(tmp_path / "cat.png", tmp_path / "out", ModelKind.EMBEDDING)
    found, metadata = read(tmp_path / "out")
    assert torch.equal(found["emb_params"], VECTORS)
    assert metadata == {"name": "cat", "step": "9"}


def painted(data: bytes, height: int = 8) -> np.ndarray:
    """A grey picture between two strips that carry `data`, each with the black column of the format."""
    packed = np.frombuffer(zlib.compress(data, 9), np.uint8)
    size = -(-len(packed) // (height * 3)) * height * 3
    low, high = (np.resize(part, size).reshape(height, -1, 3) for part in (packed & 15, packed >> 4))
    strips = [pictures.unmixed(part.astype(np.uint8)) | 0x40 for part in (low, high)]
    column = np.zeros((height, 1, 3), np.uint8)
    return np.concatenate(
        [strips[0], column, np.full((height, 5, 3), 0x77, np.uint8), column, strips[1]], axis=1
    )


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_embedding_in_a_pictures_pixels_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cat{suffix}"
    Image.fromarray(painted(embedding_json())).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    convert(path, tmp_path / "out", ModelKind.EMBEDDING)
    assert torch.equal(read(tmp_path / "out")[0]["emb_params"], VECTORS)


def test_the_sequence_in_the_pixels_is_the_published_one() -> None:
    sequence = list(pictures._sequence(100_100))
    assert sequence[:8] == [253, 242, 127, 44, 157, 27, 239, 133]
    assert sum(sequence[100:]) == 12_731_374


@pytest.fixture
def deceptive(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "plain.png")
    Image.fromarray(painted(b"[" * 100_000)).save(folder / "deep.png")
    Image.fromarray(painted(b"0" * (pictures.MAX_JSON + 1))).save(folder / "bomb.png")
    Image.fromarray(painted(b'{"string_to_param":{"*":{"TORCHTENSOR":[[1,2],[3]]}}}')).save(
        folder / "ragged.png"
    )
    Image.fromarray(painted(b'{"string_to_param":{"*":{"TORCHTENSOR":[["x"]]}}}')).save(folder / "text.png")
    (folder / "cut.png").write_bytes((folder / "plain.png").read_bytes()[:40])
    (folder / "page.webp").write_bytes(b"<html>")
    yield folder


def test_pictures_without_an_embedding_are_refused_by_name(deceptive: Path) -> None:
    for path in sorted(deceptive.iterdir()):
        with pytest.raises(ModelUnusable, match=path.name):
            here(path, ModelKind.EMBEDDING)


def test_a_file_of_another_kind_says_what_it_holds(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(ModelUnusable, match=r"x\.pt holds no textual inversion \(it has 'a', 'b'\)"):
        here(path, ModelKind.EMBEDDING)
    with pytest.raises(ModelUnusable, match=r"x\.pt holds no hypernetwork"):
        here(path, ModelKind.HYPERNETWORK)
    with pytest.raises(ModelUnusable, match=r"y\.pt holds no weights"):
        here(saved(tmp_path / "y.pt", {"a": 1}))


def test_a_view_keeps_its_place_in_a_shared_storage() -> None:
    pickle = program(b"}" + text("w") + tensor("0", 4, (2,), (2,), offset=1) + b"s")
    found = torchfile.read("x.pt", memoryview(legacy(pickle, {"0": bytes(16)})))
    view = found.root["w"]
    assert isinstance(view, Tensor)
    assert (view.offset, view.strides, found.places["0"][1] - found.places["0"][0]) == (1, (2,), 16)
