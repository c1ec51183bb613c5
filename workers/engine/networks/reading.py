"""Reading a network's file: the tensors of each module together, whoever's names they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open

from atelier.contract.errors import ModelUnusable
from workers.engine.loader.checkpoint import ModelFile
from workers.engine.loader.embeddings import Embedding, check_finite, embedding_of
from workers.engine.networks.kinds import Piece, piece

_BUNDLED = "bundle_emb."
_ALIKE = {
    "lora_up.weight": "lora_up",
    "lora_down.weight": "lora_down",
    "lora_mid.weight": "lora_mid",
    "lora_B.weight": "lora_up",
    "lora_A.weight": "lora_down",
    "lora_B.default.weight": "lora_up",
    "lora_A.default.weight": "lora_down",
    "lora.up.weight": "lora_up",
    "lora.down.weight": "lora_down",
    "lora_linear_layer.up.weight": "lora_up",
    "lora_linear_layer.down.weight": "lora_down",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    "a1.weight": "a1",
    "a2.weight": "a2",
    "b1.weight": "b1",
    "b2.weight": "b2",
}
"""How kohya, LyCORIS, PEFT and older diffusers end a tensor's name -> the part it is."""
_SAME = (
    "alpha", "scale", "dora_scale", "diff", "diff_b", "w_norm", "b_norm", "weight", "on_input", "rescale",
    "oft_blocks", "oft_diag", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
)  # fmt: skip
_PARTS = _ALIKE | {name: name for name in _SAME}
_ENDINGS = sorted(_PARTS, key=len, reverse=True)
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)_lora\.(up|down)\.weight$")
"""How diffusers once named the layers of its attention processors."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network in host memory: what it holds for each module, by the name the file gives the module.

    `strange` are tensors whose part is not known; `embeddings` the textual inversions that came with it.
    """

    id: str
    name: str
    file: str
    pieces: Mapping[str, Piece]
    strange: tuple[str, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in host memory."""
        tensors = [part for each in self.pieces.values() for part in each.parts.values()]
        return sum(tensor.nbytes for tensor in tensors) + sum(each.size for each in self.embeddings)


def split(key: str) -> tuple[str, str] | None:
    """(module, part) of a tensor's name, None where the part is not known."""
    key = _PROCESSOR.sub(lambda found: f".to_{_out(found[1])}.lora_{found[2]}.weight", key)
    ending = next((each for each in _ENDINGS if key.endswith("." + each)), None)
    return None if ending is None else (key[: -len(ending) - 1], _PARTS[ending])


def _out(letter: str) -> str:
    return "out.0" if letter == "out" else letter


def tensors_of(model: ModelFile) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Raises ModelUnusable."""
    try:
        with safe_open(model.path, framework="pt") as file:
            keys = list(file.keys())
            tensors, metadata = {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelUnusable(f"{model.called} is no readable safetensors file: {error}") from error
    check_finite(model.called, tensors)
    return tensors, metadata


def _piece(file: str, module: str, parts: Mapping[str, torch.Tensor]) -> Piece | None:
    """See `piece`. Raises ModelUnusable where a number is a table, or a table a number."""
    try:
        return piece(parts)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelUnusable(
            f"{file} is damaged: its tensors of {module[:100]!r} do not have the shapes of a network's."
        ) from error


def read_network(model: ModelFile, network_id: str, name: str) -> Network:
    """The LoRA, or one of its relatives, in a safetensors file. Raises ModelUnusable where it holds none."""
    file = model.called
    tensors, _ = tensors_of(model)
    modules: dict[str, dict[str, torch.Tensor]] = {}
    bundled: dict[str, dict[str, torch.Tensor]] = {}
    strange: list[str] = []
    for key, tensor in tensors.items():
        if key.startswith(_BUNDLED):
            word, _, part = key.removeprefix(_BUNDLED).partition(".")
            bundled.setdefault(word, {})[part] = tensor
        elif (found := split(key)) is not None:
            modules.setdefault(found[0], {})[found[1]] = tensor
        else:
            strange.append(key)
    pieces = {module: _piece(file, module, parts) for module, parts in modules.items()}
    strange += [module for module, found in pieces.items() if found is None]
    known = {module: found for module, found in pieces.items() if found is not None}
    embeddings = tuple(
        embedding_of(file, f"{network_id}:{word}", word, parts) for word, parts in bundled.items()
    )
    if not known and not embeddings:
        first = sorted(tensors)[:3]
        raise ModelUnusable(f"{file} holds no LoRA nor any of its relatives: its first tensors are {first}.")
    return Network(network_id, name, file, known, tuple(strange), embeddings)
