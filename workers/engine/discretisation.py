"""A model's noise levels: which sigma each of its training timesteps has, and the timestep between them that
a sigma means.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch

LAST_ALPHA = 4.8973451890853435e-08
"""What the last cumulative product becomes for a zero terminal signal: not quite 0, as the peer has it, since
sigma is its inverse.
"""


def zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The noise schedule shifted so that no signal is left at its last timestep (Lin et al. 2024, "Common
    Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1). [timesteps] -> [timesteps].
    """
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    shifted = ((roots - last) * first / (first - last)) ** 2
    shifted[-1] = LAST_ALPHA
    return shifted


class Discretisation:
    """The sigmas of a model trained on discrete timesteps, with logarithmic interpolation between them.

    sigma is the noise's standard deviation relative to a signal of scale 1: sqrt((1 - alpha) / alpha) for the
    cumulative product alpha.
    """

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        levels = (1.0 - alphas_cumprod) / alphas_cumprod
        self._take(levels.sqrt().tolist())

    def _take(self, sigmas: Sequence[float]) -> None:
        self.sigmas: list[float] = list(sigmas)
        self._logs = [math.log(sigma) for sigma in self.sigmas]

    def every(self, stride: int) -> Discretisation:
        """Each `stride`-th level, the last among them."""
        chosen = Discretisation.__new__(Discretisation)
        chosen._take(self.sigmas[::-1][::stride][::-1])
        return chosen

    def timestep(self, sigma: float) -> float:
        """The (fractional) timestep whose sigma this is; levels beyond the ends are those of the ends."""
        log = math.log(sigma)
        low = min(max(bisect_right(self._logs, log) - 1, 0), len(self._logs) - 2)
        share = (log - self._logs[low]) / (self._logs[low + 1] - self._logs[low])
        return low + min(max(share, 0.0), 1.0)

    def nearest(self, sigma: float) -> int:
        """The timestep whose sigma is nearest in its logarithm."""
        return round(self.timestep(sigma))

    def sigma_at(self, timestep: float) -> float:
        """The sigma of a (fractional) timestep."""
        low = min(max(math.floor(timestep), 0), len(self._logs) - 2)
        share = timestep - low
        return math.exp((1 - share) * self._logs[low] + share * self._logs[low + 1])
