"""Rows: the unit of work of a network's forward. Pictures ask with lists of them, the executor batches those
with equal keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from workers.engine.loader.checkpoint import Weights


@dataclass(frozen=True, eq=False)
class Context:
    """An encoded prompt: [tokens, width], float32 on the device. Its identity is the object's, so that one
    encoding is one prompt in a batch. `pooled`: the whole text as one vector [P], where the checkpoint wants
    it.
    """

    tensor: torch.Tensor
    pooled: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Length of the encoding: 77 for each chunk."""
        return int(self.tensor.shape[0])

    def lengthened(self, tokens: int) -> Context:
        """This encoding with its last vector repeated up to `tokens`; itself where it is that long."""
        missing = tokens - self.tokens
        if missing <= 0:
            return self
        return replace(self, tensor=torch.cat([self.tensor, self.tensor[-1:].expand(missing, -1)]))

    def shortened(self, tokens: int) -> Context:
        """The first `tokens` vectors of this encoding; itself where it has no more."""
        return self if self.tokens <= tokens else replace(self, tensor=self.tensor[:tokens])

    def filled(self, tokens: int, chunk: Context) -> Context:
        """This encoding followed by `chunk` as often as it fits into `tokens`."""
        times = (tokens - self.tokens) // chunk.tokens
        if times <= 0:
            return self
        return replace(self, tensor=torch.cat([self.tensor, *[chunk.tensor] * times]))

    def blank(self) -> Context:
        """Zeros in the place of this encoding: what SDXL is told where nothing is to be avoided."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Context(torch.zeros_like(self.tensor), pooled)


class Added(NamedTuple):
    """What an SDXL network is told besides its prompt: the whole text as one vector [P], and numbers: the
    sizes (height, width) that were asked for and came of it, where it was cut, or how good it looks.
    """

    pooled: torch.Tensor
    numbers: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Hint:
    """A picture that a ControlNet is shown: [3, 8h, 8w] in 0..1, on the device. One object is one picture."""

    picture: torch.Tensor


@dataclass(frozen=True, eq=False)
class Control:
    """A ControlNet as a row uses it: its weights, what it is shown, and how strongly each of its outputs
    acts, the middle's last. `pooled`: of each channel only the mean acts (models of shuffled pictures).
    """

    network: Weights
    hint: Hint
    scales: tuple[float, ...]
    pooled: bool = False


@dataclass(frozen=True, eq=False)
class Row:
    """One sample of a forward: what the UNet is shown ([C, H, W], already scaled), when, and with which
    prompt. `weights` names the UNet's weights; `extra` are the channels an inpainting model is shown besides
    ([E, H, W]); `tiling` joins the latent's opposite edges; `added` is what is told besides the prompt.
    """

    latent: torch.Tensor
    timestep: float
    context: Context
    weights: str = ""
    extra: torch.Tensor | None = None
    tiling: bool = False
    added: Added | None = None
    controls: tuple[Control, ...] = ()
    """The ControlNets that act on it."""

    @property
    def shown(self) -> torch.Tensor:
        """[C + E, H, W]: all channels the network is shown."""
        return self.latent if self.extra is None else torch.cat([self.latent, self.extra])


Evaluation = list[Row]
"""What a picture asks at once. The answer is a list of predictions ([C, H, W]) in the same order."""


@dataclass(frozen=True, eq=False)
class Decode:
    """A question between two passes: the picture of `latent` [C, h, w], as [3, 8h, 8w] in -1..1 (unclamped)
    by the autoencoder `vae`.
    """

    vae: str
    latent: torch.Tensor
    scale_factor: float
    tiling: bool = False


@dataclass(frozen=True, eq=False)
class Encode:
    """A question between two passes: the latent [C, h, w] of `picture` ([3, 8h, 8w] in -1..1), scaled as the
    UNet knows it.
    """

    vae: str
    picture: torch.Tensor
    scale_factor: float
    tiling: bool = False


Question = Evaluation | Decode | Encode
"""What a picture may ask. Decode and Encode are answered with one tensor, alone in its list."""


class BatchKey(NamedTuple):
    """Rows with equal keys may share a forward: nothing of sampler, step, guidance, seed or sigma is in
    it.
    """

    weights: str
    channels: int
    height: int
    width: int
    tokens: int
    tiling: bool = False
    alone: int = 0


def key_of(row: Row, *, alone: bool = False) -> BatchKey:
    """The batch key of a row; with `alone` one that no other row has. Processors round less where a forward
    has one row: convolutions of several take other ways (3.5e-7 against 1.4e-7 of the output, measured on
    one with AVX2).
    """
    channels, height, width = row.latent.shape
    if row.extra is not None:
        channels += row.extra.shape[0]
    return BatchKey(
        row.weights, channels, height, width, row.context.tokens, row.tiling, id(row) if alone else 0
    )
