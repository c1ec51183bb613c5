"""The peer's pickled files as the safetensors files they are stored as."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def converted_embedding(given: Path, place: Path) -> Path:
    """A textual inversion of one text encoder."""
    vectors = torch.load(given, weights_only=True)["string_to_param"]["*"]
    stored = place / f"{given.stem}.safetensors"
    save_file({"emb_params": vectors.contiguous()}, stored)
    return stored


def converted_hypernetwork(given: Path, place: Path) -> Path:
    """A hypernetwork in the peer's pickled form, as the safetensors file it is stored as."""
    members = torch.load(given, weights_only=True)
    tensors = {
        f"{width}.{side}.{name}": tensor.contiguous()
        for width, pair in members.items()
        if isinstance(width, int)
        for side, state in zip("kv", pair, strict=True)
        for name, tensor in state.items()
    }
    plain = {key: value for key, value in members.items() if not isinstance(key, int)}
    stored = place / f"{given.stem}.safetensors"
    save_file(tensors, stored, metadata={"hypernetwork": json.dumps(plain)})
    return stored
