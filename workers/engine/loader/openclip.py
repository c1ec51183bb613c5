"""Text encoders as OpenCLIP writes them (SD2, SDXL's second one) under the names of transformers, and back.

OpenCLIP keeps queries, keys and values of a layer in one tensor and multiplies by its projection from the
right.
"""

from __future__ import annotations

import re

import torch

Tensors = dict[str, torch.Tensor]

_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_OWN_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OUTSIDE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_PROJECTION, _OWN_PROJECTION = "text_projection", "text_projection.weight"
_QKV = ("q_proj", "k_proj", "v_proj")


def to_own(tensors: Tensors) -> tuple[Tensors, list[str]]:
    """Tensors named by OpenCLIP (below `model.`) under the names of transformers (below `text_model.`), and
    the names that no text encoder has. Queries, keys and values are views of the joint tensor.
    """
    own: Tensors = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        found = _LAYER.fullmatch(key)
        if key in _OUTSIDE:
            own[_OUTSIDE[key]] = tensor
        elif key in (_PROJECTION, _OWN_PROJECTION):
            own[_OWN_PROJECTION] = tensor.T.contiguous() if key == _PROJECTION else tensor
        elif found is not None and (named := _inside(found[2], tensor)):
            own |= {f"encoder.layers.{found[1]}.{name}": part for name, part in named.items()}
        else:
            unknown.append(key)
    return own, unknown


def _inside(name: str, tensor: torch.Tensor) -> Tensors:
    """A layer's tensor under its own name or names; empty for an unknown one."""
    head, _, last = name.rpartition(".")
    if head in _INSIDE:
        return {f"{_INSIDE[head]}.{last}": tensor}
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.rpartition("_")[2]
        parts = zip(_QKV, tensor.chunk(3), strict=True)
        return {f"self_attn.{part}.{kind}": each for part, each in parts}
    return {}


def from_own(own: Tensors) -> tuple[Tensors, list[str]]:
    """The inverse of `to_own`."""
    outside = {name: theirs for theirs, name in _OUTSIDE.items()}
    inside = {name: theirs for theirs, name in _INSIDE.items()}
    tensors: Tensors = {}
    unknown: list[str] = []
    for key, tensor in own.items():
        found = _OWN_LAYER.fullmatch(key)
        head, _, last = found[2].rpartition(".") if found else ("", "", "")
        if key in outside:
            tensors[outside[key]] = tensor
        elif key == _OWN_PROJECTION:
            tensors[_PROJECTION] = tensor.T.contiguous()
        elif found and head in inside:
            tensors[f"transformer.resblocks.{found[1]}.{inside[head]}.{last}"] = tensor
        elif found and head == "self_attn.q_proj":
            parts = [own.get(f"encoder.layers.{found[1]}.self_attn.{part}.{last}") for part in _QKV]
            whole = [part for part in parts if part is not None]
            joint = f"transformer.resblocks.{found[1]}.attn.in_proj_{last}"
            tensors[joint] = torch.cat(whole) if len(whole) == len(_QKV) else tensor
        elif not (found and head in ("self_attn.k_proj", "self_attn.v_proj")):
            unknown.append(key)
    return tensors, unknown
