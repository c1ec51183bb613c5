"""Textual inversions: vectors that stand for a word in the text encoder's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open

from atelier.contract.errors import ModelUnusable
from workers.engine.loader.checkpoint import ModelFile

_KEY = "emb_params"
FIRST, SECOND = "clip_l", "clip_g"
"""For SDXL's two text encoders."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """An embedding in host memory: `vectors` is [count, width], float32, and so is `second` for the second
    text encoder of SDXL. `name` is the word for it.
    """

    id: str
    name: str
    vectors: torch.Tensor
    second: torch.Tensor | None = None

    def of_width(self, width: int) -> torch.Tensor | None:
        """The vectors for a text encoder of that width, None where there are none."""
        fitting = (each for each in (self.vectors, self.second) if each is not None)
        return next((each for each in fitting if each.shape[1] == width), None)

    @property
    def count(self) -> int:
        """How many tokens it takes the place of."""
        return int(self.vectors.shape[0])

    @property
    def size(self) -> int:
        """Bytes in host memory."""
        every = (each for each in (self.vectors, self.second) if each is not None)
        return sum(each.numel() * each.element_size() for each in every)


def read_embedding(model: ModelFile, embedding_id: str, name: str) -> Embedding:
    """The embedding in a safetensors file: the tensor `emb_params`, or the only one there is (the library's
    form), or `clip_l` and `clip_g` for SDXL's two text encoders. Raises ModelUnusable.
    """
    file = model.called
    try:
        with safe_open(model.path, framework="pt") as source:
            tensors = {key: source.get_tensor(key) for key in source.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ModelUnusable(f"{file} is no readable safetensors file: {error}") from error
    check_finite(file, tensors)
    return embedding_of(file, embedding_id, name, tensors)


def check_finite(file: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ModelUnusable, naming `file`, where a tensor has numbers that are infinite or none."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise ModelUnusable(
                f"{file} is damaged: {key[:100]!r} has numbers that are infinite or none. Get it again where "
                "it came from."
            )


def embedding_of(file: str, embedding_id: str, name: str, tensors: Mapping[str, torch.Tensor]) -> Embedding:
    """The embedding that `tensors` of `file` hold, in any of the forms of `read_embedding`. Raises
    ModelUnusable.
    """
    both = tensors.keys() >= {FIRST, SECOND}
    names = (FIRST, SECOND) if both else (_KEY,) if _KEY in tensors else tuple(tensors)
    found = [tensors[each] for each in names]
    if not found or (len(found) > 1 and not both):
        raise ModelUnusable(
            f"{file} holds no textual inversion: it has the tensors {sorted(tensors)[:5]}, and one named "
            f"{_KEY!r}, or {FIRST!r} and {SECOND!r}, was looked for."
        )
    if any(each.ndim not in (1, 2) for each in found):
        shapes = [tuple(each.shape) for each in found]
        raise ModelUnusable(f"{file} holds no textual inversion: vectors cannot have the shapes {shapes}.")
    first, *second = [torch.atleast_2d(each.float()).contiguous() for each in found]
    if any(len(each) != len(first) for each in second):
        raise ModelUnusable(
            f"{file} has {len(first)} vectors for one text encoder and {len(second[0])} for the other; they "
            "stand for the same tokens and must be as many."
        )
    return Embedding(embedding_id, name, first, second[0] if second else None)
