"""The peer's own pictures that the replay over HTTP leaves out, made again by the engine alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier import infotext, inputs, modelcard, modelfile
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.resolve import resolve_txt2img
from atelier.resolve.members import lifted
from tests.legacy_files import converted_embedding, converted_hypernetwork
from workers.engine import Engine, EngineResult, ModelFile

TOLERANCE = 2
"""Of 255: what the peer itself differs by between two runs."""
PATIENCE = 120.0

PICTURES = ["restore-faces"]
"""Where the peer, too, changes nothing of the picture."""
NETWORKS = ["net-hypernet-1", "net-lora-two", "net-lora-missing", "hires-lora"]
CONTROL = ["cn-adv", "cn-hires", "cn-pixelperfect", "cn-resize2", "cn-start-end"]
"""The others are replayed over HTTP; two begin with a picture, which is image-to-image."""
EMBEDDINGS = ["ti-both-weight", "ti-boundary", "ti-edit", "ti-pt", "ti-upper"]


class Recorded:
    """The recorded requests, with the models they name, and an engine that has these."""

    def __init__(self, golden: Path, place: Path) -> None:
        self._golden = golden
        self._files = {name: golden / "models" / f"{name}.safetensors" for name in ("oracle", "oracle_b")}
        models = [_reference(path) for path in self._files.values()]
        for name, file in (("tiny-ti", "tiny-ti.pt"), ("tiny-ti2", "tiny-ti2.safetensors")):
            given = golden / "models" / file
            self._files[name] = converted_embedding(given, place) if given.suffix == ".pt" else given
            models.append(_reference(given, ModelKind.EMBEDDING))
        for name in ("lora_a", "locon_b", "loha_c", "lokr_d", "dora_e"):
            self._files[name] = golden / "models" / f"{name}.safetensors"
            models.append(_reference(self._files[name], ModelKind.LORA))
        given = golden / "models" / "tiny-hn.pt"
        self._files["tiny-hn"] = converted_hypernetwork(given, place)
        models.append(_reference(given, ModelKind.HYPERNETWORK))
        self._files["control_tiny_canny"] = golden / "models" / "control_tiny_canny.safetensors"
        models.append(_reference(self._files["control_tiny_canny"], ModelKind.CONTROLNET))
        self._inputs: dict[str, bytes] = {}
        self.catalogue = Catalogue(models=tuple(models), default_checkpoint="oracle.safetensors")
        self.engine = Engine(self._open, open_input=lambda name: self._inputs[name])

    def _open(self, ref: ModelRef) -> ModelFile:
        path = self._files[ref.name]
        beside = path.with_suffix(".yaml")
        return ModelFile(path, beside.read_text() if beside.is_file() else None)

    def case(self, name: str) -> dict[str, Any]:
        """The recorded request and answer."""
        found: dict[str, Any] = json.loads((self._golden / "cases" / f"{name}.json").read_text())
        return found

    def keep(self, text: str) -> str:
        """Keep an input picture, as a portal would."""
        name = f"input-{len(self._inputs)}"
        self._inputs[name] = inputs.decoded(text)
        return name

    def worst(self, name: str) -> int:
        """The largest difference of our picture to the recorded one."""
        case = self.case(name)
        payload = lifted(case["payload"], self.keep)
        [part] = resolve_txt2img(payload, self.catalogue, answering=True).parts
        return self.farthest(name, self.engine.submit(part).result(PATIENCE))

    def farthest(self, name: str, made: EngineResult) -> int:
        """The largest difference of what was made to what is recorded: pictures, then maps."""
        case = self.case(name)
        ours = [*(each.pixels for each in made.pictures), *(each.pixels for each in made.maps)]
        files = [self._golden / "cases" / name for name in case["images"]]
        theirs = [np.asarray(Image.open(file).convert("RGB")) for file in files]
        differences = [
            np.abs(one.astype(int) - other.astype(int)).max() for one, other in zip(ours, theirs, strict=True)
        ]
        return int(max(differences))


def _reference(path: Path, kind: ModelKind = ModelKind.CHECKPOINT) -> ModelRef:
    """The model as the catalogue has it; what the peer calls a LoRA's hash is in it."""
    addnet = _addnet_hash(path) if kind is ModelKind.LORA else None
    return modelfile.reference(path, kind).model_copy(update={"addnet_hash": addnet})


def _addnet_hash(path: Path) -> str:
    header = modelfile.read_header(path)
    return modelcard.addnet_hash(path, header.metadata, header.data_offset)


@pytest.fixture(scope="module")
def recorded(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The recorded requests with a started engine."""
    made = Recorded(golden, tmp_path_factory.mktemp("golden"))
    made.engine.start()
    yield made
    made.engine.close(30.0)


@pytest.mark.parametrize("name", PICTURES)
def test_the_engine_makes_the_peers_picture(recorded: Recorded, name: str) -> None:
    assert recorded.worst(name) <= TOLERANCE


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_by_name_make_the_peers_picture_and_infotext(recorded: Recorded, name: str) -> None:
    assert recorded.worst(name) <= TOLERANCE
    case = recorded.case(name)
    [part] = resolve_txt2img(case["payload"], recorded.catalogue, answering=True).parts
    said = infotext.render(part, 0).partition(", Version")[0]
    assert said == case["info"]["infotexts"][0].partition(", Version")[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_by_tag_make_the_peers_picture_and_infotext(recorded: Recorded, name: str) -> None:
    assert recorded.worst(name) <= TOLERANCE
    case = recorded.case(name)
    resolution = resolve_txt2img(case["payload"], recorded.catalogue, answering=True)
    [part] = resolution.parts
    assert (
        infotext.render(part, 0).partition(", Version")[0]
        == (case["info"]["infotexts"][0].partition(", Version")[0])
    )
    assert not resolution.ignored
    assert bool(resolution.warnings) == (name == "net-lora-missing")


@pytest.mark.parametrize("name", CONTROL)
def test_a_controlnet_makes_the_peers_picture_map_and_infotext(recorded: Recorded, name: str) -> None:
    assert recorded.worst(name) <= TOLERANCE
    case = recorded.case(name)
    payload = lifted(case["payload"], recorded.keep)
    resolution = resolve_txt2img(payload, recorded.catalogue, answering=True)
    [part] = resolution.parts
    assert (
        infotext.render(part, 0).partition(", Version")[0]
        == (case["info"]["infotexts"][0].partition(", Version")[0])
    )
    assert not resolution.ignored


def test_pictures_with_and_without_controlnet_that_are_made_at_once_stay_the_peers(
    recorded: Recorded,
) -> None:
    """Three at once: two with a ControlNet, one of them for some of its steps, and one without."""
    names = ["cn-none", "cn-start-end", "restore-faces"]
    parts = []
    for name in names:
        payload = lifted(recorded.case(name)["payload"], recorded.keep)
        [part] = resolve_txt2img(payload, recorded.catalogue, answering=True).parts
        parts.append(part)
    handles = [recorded.engine.submit(part) for part in parts]
    for name, handle in zip(names, handles, strict=True):
        assert recorded.farthest(name, handle.result(PATIENCE)) <= TOLERANCE
