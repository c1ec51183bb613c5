"""Reading a ControlNet's file: the LDM layout (bare, below `control_model.`, or inside a whole checkpoint of
that project), or the diffusers library's.
"""

from __future__ import annotations

import re

import torch

from atelier.contract.errors import ModelUnusable
from workers.engine.loader import ldm_keys, weightfile
from workers.engine.loader.architecture import MOST_LAYERS, infer_control
from workers.engine.loader.checkpoint import ModelFile, Tensors, Weights, check, expected, renamed, shapes

PREFIX = "control_model."
_DIFFUSERS = "controlnet_cond_embedding.conv_in.weight"
_LDM = "input_hint_block.0.weight"
_PARTLY = ("lora_controlnet", "difference")
"""Tensors that say: what is in the file is to be added to a checkpoint's weights first."""


def read_control(model: ModelFile, weights_id: str, *, pinned: bool = False) -> Weights:
    """The ControlNet in `model`. Raises ModelUnusable."""
    file, names = model.called, weightfile.header_of(model.bytes).tensors
    if any(name in names for name in _PARTLY):
        raise ModelUnusable(
            f"{file} holds a ControlNet as a difference to a checkpoint (or as a control LoRA), which cannot "
            "be used. Import the whole ControlNet."
        )
    prefix = PREFIX if PREFIX + _LDM in names else ""
    tensors, _ = weightfile.read(model.bytes, lambda key: key.startswith(prefix), pinned=pinned)
    given = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    if _DIFFUSERS in given:
        given = _in_ldm(file, given)
    elif _LDM not in given:
        raise ModelUnusable(
            f"{file} holds no ControlNet: neither the tensor {_LDM!r} nor {_DIFFUSERS!r} is in it. Adapters "
            "(T2I-Adapter, IP-Adapter, ControlNet-LLLite) cannot be used."
        )
    shape = infer_control(shapes(given), file)
    own, unknown = renamed(given, ldm_keys.control_names(shape.unet.attention, shape.unet.blocks))
    check(file, "ControlNet", own, expected(file, "ControlNet", shape), unknown)
    return Weights(weights_id, shape, own)


def _in_ldm(file: str, given: Tensors) -> Tensors:
    """The library's names as the LDM layout's."""
    levels = _number(given, r"down_blocks\.(\d+)\.")
    attention = [f"down_blocks.{level}.attentions.0.norm.weight" in given for level in range(levels)]
    blocks = _number(given, r"down_blocks\.0\.resnets\.(\d+)\.")
    modules = ldm_keys.inverted(ldm_keys.control_names(attention, blocks))
    named = {key: ldm_keys.rename(key, modules) for key in given}
    strange = sorted(key for key, theirs in named.items() if theirs is None)
    if strange:
        raise ModelUnusable(f"{file} has {len(strange)} tensors no ControlNet knows, first {strange[0]!r}.")
    return {theirs: given[key] for key, theirs in named.items() if theirs is not None}


def _number(tensors: dict[str, torch.Tensor], pattern: str) -> int:
    """How many numbers `pattern`'s group has, at most MOST_LAYERS."""
    found = [int(match[1]) for match in (re.match(pattern, key) for key in tensors) if match]
    return min(max(found, default=-1) + 1, MOST_LAYERS)
