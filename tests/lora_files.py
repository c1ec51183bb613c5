"""Small LoRA files for the tests' checkpoints, in whichever names, with what they add to each weight."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RANK = 2
_PREFIXES = {"model.diffusion_model.": "lora_unet_", "cond_stage_model.transformer.": "lora_te_"}


def attentions(checkpoint: Path) -> list[tuple[str, torch.Size]]:
    """Kohya's names after the LDM layout, and weights' shapes, of what a checkpoint's attentions project."""
    return [
        (prefix + key.removeprefix(ldm).removesuffix(".weight").replace(".", "_"), tensor.shape)
        for key, tensor in load_file(checkpoint).items()
        for ldm, prefix in _PREFIXES.items()
        if key.startswith(ldm) and re.search(r"(attn\d\.to_[qkv]|[qkv]_proj)\.weight$", key)
    ]


def lora_file(path: Path, names: Iterable[tuple[str, torch.Size]], seed: int, size: float = 0.3) -> Path:
    """Write a LoRA in kohya's form for modules of these names and shapes of weights, which adds to each
    about its `size`.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, (outputs, *inputs) in names:
        down = torch.randn(RANK, *inputs, generator=generator)
        ones = [1] * (len(inputs) - 1)
        tensors[f"{name}.lora_up.weight"] = torch.randn(outputs, RANK, *ones, generator=generator) * size
        tensors[f"{name}.lora_down.weight"] = down / down[0].numel() ** 0.5
        tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, path)
    return path


def product(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """What such a file adds to a linear layer's weight at full strength, by the definition."""
    return tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]
