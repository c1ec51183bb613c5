"""A picture's own noise: what it starts from and what its sampler adds, independent of every other picture.

Behaviour of the peer (v1.10.1): one generator per picture, variation seeds by spherical interpolation, seed
resizing, ENSD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from workers.engine.noise import philox
from workers.engine.noise.brownian import tree_over

Draw = Callable[[tuple[int, ...]], torch.Tensor]
"""Gives the next standard normal tensor of a shape: float32 on the CPU."""
Upload = Callable[[torch.Tensor], torch.Tensor]
"""Brings a tensor of the host to where the picture is made."""
Increments = Callable[[float, float], torch.Tensor]
"""(sigma, following) -> a Brownian path's increment between the two levels, scaled to unit variance."""

_DRAWN_AT_ONCE = 1 << 15
"""Numbers: small draws are made together, large ones stay in the processor's cache."""
_NEARLY_PARALLEL = 0.9995


def generator(source: str, seed: int) -> Draw:
    """A fresh stream of numbers: torch's CPU generator for "CPU", those of CUDA's generator for "GPU" and
    "NV".
    """
    if source == "CPU":
        stream = torch.Generator("cpu").manual_seed(seed)
        return lambda shape: torch.randn(shape, generator=stream, device="cpu")
    stream_of_cuda = philox.PhiloxGenerator(seed)
    return lambda shape: torch.from_numpy(stream_of_cuda.normal(shape))


def of_seeds(source: str, seeds: Sequence[int], shape: tuple[int, ...]) -> list[torch.Tensor]:
    """The first draw of each seed's stream."""
    if source == "CPU":
        return [generator(source, seed)(shape) for seed in seeds]
    together = max(_DRAWN_AT_ONCE // math.prod(shape), 1)
    parts = (seeds[place : place + together] for place in range(0, len(seeds), together))
    return [drawn for part in parts for drawn in torch.from_numpy(philox.normal(part, 0, shape))]


def slerp(share: float, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation from `start` (share 0) to `end` (share 1), column by column as the peer does
    ([C, H, W], along H).
    """
    unit_start = start / start.norm(dim=1, keepdim=True)
    unit_end = end / end.norm(dim=1, keepdim=True)
    cosine = (unit_start * unit_end).sum(1)
    if float(cosine.mean()) > _NEARLY_PARALLEL:
        return end * share + start * (1 - share)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    from_start = (torch.sin((1.0 - share) * angle) / sine).unsqueeze(1) * start
    return from_start + (torch.sin(share * angle) / sine).unsqueeze(1) * end


def centred(canvas: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """`canvas` with `patch` in its middle, cropped where it is larger ([C, H, W])."""
    spans = []
    for side, inner in zip(canvas.shape[1:], patch.shape[1:], strict=True):
        margin = (side - inner) // 2
        length = inner if margin >= 0 else inner + 2 * margin
        spans.append(
            (slice(max(margin, 0), max(margin, 0) + length), slice(max(-margin, 0), max(-margin, 0) + length))
        )
    (rows, patch_rows), (columns, patch_columns) = spans
    out = canvas.clone()
    out[:, rows, columns] = patch[:, patch_rows, patch_columns]
    return out


@dataclass(frozen=True)
class NoisePlan:
    """Which numbers a picture is made of. `shape` and `resize_from` are (channels, height, width) in latent
    pixels.
    """

    source: str
    seed: int
    shape: tuple[int, int, int]
    subseed: int = 0
    subseed_strength: float = 0.0
    resize_from: tuple[int, int, int] | None = None
    seed_delta: int = 0


class PictureNoise:
    """The noise of one picture: `first` to start from, then `step` whenever its sampler adds some.

    The numbers are made on the host, which has time for it while a GPU works, and are the same everywhere.
    """

    def __init__(
        self,
        plan: NoisePlan,
        span: tuple[float, float] | None = None,
        upload: Upload = lambda drawn: drawn,
    ) -> None:
        """`span`: the lowest and highest level of the whole schedule, where the picture goes through its end
        alone. Its Brownian path is laid over all of them, as in the peer.
        """
        self.plan, self._span, self._upload = plan, span, upload
        self._stream = generator(plan.source, plan.seed)

    def first(self) -> torch.Tensor:
        """The noise the picture starts from ([C, H, W], standard normal). Call it once, before `step`."""
        plan = self.plan
        resized = plan.resize_from is not None and plan.resize_from != plan.shape
        whole = self._stream(plan.shape)
        noise = generator(plan.source, plan.seed)(plan.resize_from or plan.shape) if resized else whole
        if plan.subseed_strength:
            varied = generator(plan.source, plan.subseed)(tuple(noise.shape))
            noise = slerp(plan.subseed_strength, noise, varied)
        if plan.seed_delta:
            self._stream = generator(plan.source, plan.seed + plan.seed_delta)
        return self._upload(centred(whole, noise) if resized else noise)

    def step(self) -> torch.Tensor:
        """The next noise of the picture's shape."""
        return self._upload(self._stream(self.plan.shape))

    def brownian(self, low: float, high: float) -> Increments:
        """The picture's Brownian path over the noise levels from `low` to `high`. It comes of the seed alone:
        neither a variation nor the seed delta changes it, as in the peer.
        """
        plan = self.plan
        low, high = self._span or (low, high)
        tree = tree_over(plan.seed, low, high, lambda seeds: of_seeds(plan.source, seeds, plan.shape))
        return lambda sigma, following: self._upload(tree.increment(sigma, following))
