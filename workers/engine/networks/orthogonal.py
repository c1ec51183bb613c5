"""OFT and BOFT: a weight turned by rotations of blocks of its outputs (Qiu et al. 2023, Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_SMALL = 1e-8


class DoesNotDivide(ValueError):
    """The outputs cannot be cut into the file's blocks."""


def turned(parts: Mapping[str, torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """`weight` [outputs, ...] after the rotation.

    `oft_diag` [blocks, b, b] are rotations; `oft_blocks` [blocks, b, b] (OFT) or [stages, blocks, b, b]
    (BOFT) parameters of the Cayley transform, whose norm `constraint` x outputs bounds. `rescale` [outputs]
    is a factor of each output. Raises DoesNotDivide.
    """
    if "oft_diag" in parts:
        rotations = parts["oft_diag"]
    else:
        bound = parts.get("constraint")
        rotations = cayley(parts["oft_blocks"], None if bound is None else bound * weight.shape[0])
    blocks, side = rotations.shape[-3], rotations.shape[-1]
    if blocks * side != weight.shape[0]:
        raise DoesNotDivide(f"{blocks} blocks of {side} do not fit {tuple(weight.shape)}")
    rows = weight.flatten(1)
    rows = _butterfly(rotations, rows) if rotations.ndim == 4 else _blocks(rotations.transpose(1, 2), rows)
    out = rows.reshape(weight.shape)
    if "rescale" in parts:
        out = out * parts["rescale"].reshape(-1, *[1] * (weight.ndim - 1))
    return out


def cayley(blocks: torch.Tensor, bound: torch.Tensor | None) -> torch.Tensor:
    """Rotations (I + Q)(I - Q)^-1 of the skew-symmetric Q = blocks - blocks^T, whose norm over all blocks is
    cut to `bound` if there is one above 0.
    """
    skew = blocks - blocks.transpose(-1, -2)
    if bound is not None:
        norm = torch.linalg.vector_norm(skew)
        cut = torch.where(bound > 0, torch.minimum(norm, bound), norm)
        skew = skew * ((cut + _SMALL) / (norm + _SMALL))
    eye = torch.eye(blocks.shape[-1], device=blocks.device)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def _blocks(rotations: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Each block of rows ([outputs, n]) times its rotation ([blocks, b, b]) from the left."""
    side = rotations.shape[-1]
    return (rotations @ rows.unflatten(0, (-1, side))).flatten(0, 1)


def _butterfly(stages: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rotations in stages: before each, rows that are 2^stage x b / 2 apart are brought together."""
    half = stages.shape[-1] // 2
    for number, rotations in enumerate(stages):
        apart = 2**number * half
        if rows.shape[0] % (2 * apart):
            raise DoesNotDivide(f"{rows.shape[0]} outputs cannot be mixed {apart} apart")
        together = rows.unflatten(0, (-1, 2, apart)).transpose(1, 2).flatten(0, 2)
        mixed = _blocks(rotations, together)
        rows = mixed.unflatten(0, (-1, apart, 2)).transpose(1, 2).flatten(0, 2)
    return rows
