"""From a model folder of the diffusers library to the one file it means: tensors under the names of the LDM
layout.

Pure: tensors in, tensors out. Who reads the folder and writes the file is elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from atelier.contract.errors import ModelUnusable
from workers.engine.loader import ldm_keys, openclip
from workers.engine.loader.architecture import HEAD_WIDTH, UNET_HEADS
from workers.engine.loader.sidecar import SD1_SCALE_FACTOR, SDXL_SCALE_FACTOR

Tensors = dict[str, torch.Tensor]
Configs = Mapping[str, Mapping[str, Any]]
"""The JSON of each part's configuration, by the name of its sub-folder."""

UNET, VAE, TEXT, TEXT_2, SCHEDULER = "unet", "vae", "text_encoder", "text_encoder_2", "scheduler"
PARTS = (UNET, VAE, TEXT, TEXT_2)
"""Sub-folders whose tensors are wanted; a folder has one of the last two, or both."""

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_WITHOUT_WEIGHT = ("position_ids", "logit_scale")


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint as one file: its tensors in the LDM layout, and the metadata of its header."""

    tensors: Tensors
    metadata: dict[str, str]


def single_file(name: str, parts: Mapping[str, Tensors], configs: Configs) -> SingleFile:
    """The single-file checkpoint of a folder called `name` whose `parts` (see PARTS) hold these tensors.

    `configs` are the parts' configurations and the scheduler's, as far as they are there. Raises
    ModelUnusable, naming the folder and the tensor or the setting that no family of ours has.
    """
    missing = [part for part in (UNET, VAE) if not parts.get(part)]
    if missing or not (parts.get(TEXT) or parts.get(TEXT_2)):
        raise ModelUnusable(
            f"The folder {name} lacks the tensors of its {(missing or [TEXT])[0]}: a Stable "
            "Diffusion folder has unet, vae and text_encoder or text_encoder_2."
        )
    linear = _linear(parts[UNET])
    latest = bool(parts.get(TEXT_2))
    _check_heads(name, parts[UNET], configs.get(UNET, {}), linear=linear)
    _check_scale(name, configs.get(VAE, {}), SDXL_SCALE_FACTOR if latest else SD1_SCALE_FACTOR)
    tensors = _unet(name, parts[UNET]) | _vae(name, parts[VAE])
    for prefix, text, open_clip in _texts(parts, linear=linear):
        tensors |= _text(name, prefix, text, open_clip=open_clip, deepened=not latest)
    predicts = configs.get(SCHEDULER, {}).get("prediction_type")
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    return SingleFile(tensors, {"modelspec.prediction_type": "v"} if predicts == "v_prediction" else {})


def _linear(unet: Tensors) -> bool:
    found = next((tensor for key, tensor in unet.items() if key.endswith(".proj_in.weight")), None)
    return found is not None and found.ndim == 2


def _check_heads(name: str, unet: Tensors, config: Mapping[str, Any], *, linear: bool) -> None:
    """The heads leave no trace in tensors, so they must be those the loader assumes."""
    stated = config.get("num_attention_heads") or config.get("attention_head_dim")
    widths = config.get("block_out_channels")
    if stated is None or not isinstance(widths, list | tuple):
        return
    heads = stated if isinstance(stated, list | tuple) else [stated] * len(widths)
    assumed = [max(1, width // HEAD_WIDTH) if linear else UNET_HEADS for width in widths]
    attends = [
        any(key.startswith(f"down_blocks.{level}.attentions.") for key in unet)
        for level in range(len(widths))
    ]
    for level, attending in enumerate(attends):
        if attending and heads[level] != assumed[level]:
            raise ModelUnusable(
                f"The folder {name} has a UNet with {heads} attention heads per level, where its family has "
                f"{assumed}: it cannot be written as one file without loss."
            )


def _check_scale(name: str, config: Mapping[str, Any], expected: float) -> None:
    stated = config.get("scaling_factor")
    if stated is not None and abs(float(stated) - expected) > 1e-6:
        raise ModelUnusable(
            f"The folder {name} scales its latents by {stated}, where its family does by {expected}: it "
            "cannot be written as one file without loss."
        )


def _number(tensors: Tensors, pattern: str) -> int:
    found = [int(match[1]) for match in (re.match(pattern, key) for key in tensors) if match]
    return max(found, default=-1) + 1


def _renamed(name: str, part: str, tensors: Tensors, modules: dict[str, str]) -> Tensors:
    renamed: Tensors = {}
    for key, tensor in tensors.items():
        theirs = ldm_keys.rename(key, modules)
        if theirs is None:
            raise ModelUnusable(f"The folder {name} has a tensor in its {part} that no family has: {key!r}.")
        renamed[theirs] = tensor
    return renamed


def _unet(name: str, tensors: Tensors) -> Tensors:
    levels = _number(tensors, r"down_blocks\.(\d+)\.")
    attention = [f"down_blocks.{level}.attentions.0.norm.weight" in tensors for level in range(levels)]
    blocks = _number(tensors, r"down_blocks\.0\.resnets\.(\d+)\.")
    modules = ldm_keys.inverted(ldm_keys.unet_names(attention, blocks))
    named = _renamed(name, UNET, tensors, modules)
    return {f"model.diffusion_model.{key}": tensor for key, tensor in named.items()}


def _vae(name: str, tensors: Tensors) -> Tensors:
    levels = _number(tensors, r"encoder\.down_blocks\.(\d+)\.")
    blocks = _number(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    modules = ldm_keys.inverted(ldm_keys.vae_names(levels, blocks))
    named = _renamed(name, VAE, {_modern(key): tensor for key, tensor in tensors.items()}, modules)
    # attention is written as convolutions of one pixel there
    return {
        f"first_stage_model.{key}": tensor[:, :, None, None]
        if ".attn_1." in key and tensor.ndim == 2
        else tensor
        for key, tensor in named.items()
    }


def _modern(key: str) -> str:
    """The library has renamed the parts of the autoencoder's attention since."""
    head, _, last = key.rpartition(".")
    before, _, module = head.rpartition(".")
    return f"{before}.{_OLD_ATTENTION[module]}.{last}" if module in _OLD_ATTENTION else key


def _texts(parts: Mapping[str, Tensors], *, linear: bool) -> list[tuple[str, Tensors, bool]]:
    """Prefix in the file, tensors, and whether it is written as OpenCLIP does, of each text encoder."""
    first, second = parts.get(TEXT), parts.get(TEXT_2)
    if second and first:
        return [
            ("conditioner.embedders.0.transformer.", first, False),
            ("conditioner.embedders.1.model.", second, True),
        ]
    if second:
        return [("conditioner.embedders.0.model.", second, True)]
    assert first is not None
    prefix = "cond_stage_model.model." if linear else "cond_stage_model.transformer."
    return [(prefix, first, linear)]


def _text(name: str, prefix: str, tensors: Tensors, *, open_clip: bool, deepened: bool) -> Tensors:
    own = {
        key.removeprefix("text_model."): tensor
        for key, tensor in tensors.items()
        if not key.endswith(_WITHOUT_WEIGHT)
    }
    if not open_clip:
        own.pop("text_projection.weight", None)
        return {f"{prefix}text_model.{key}": tensor for key, tensor in own.items()}
    if deepened:
        own |= _one_more_layer(own)
    named, unknown = openclip.from_own(own)
    if unknown:
        raise ModelUnusable(
            f"The folder {name} has a tensor in its text encoder that no family has: {unknown[0]!r}."
        )
    return {f"{prefix}{key}": tensor for key, tensor in named.items()}


def _one_more_layer(own: Tensors) -> Tensors:
    """Single files of SD2 have one layer more than is read; folders leave it out. What is in it does not
    matter: the last one again.
    """
    layers = _number(own, r"encoder\.layers\.(\d+)\.")
    last, new = f"encoder.layers.{layers - 1}.", f"encoder.layers.{layers}."
    copied = {key.removeprefix(last): tensor.clone() for key, tensor in own.items() if key.startswith(last)}
    return {new + key: tensor for key, tensor in copied.items()}
