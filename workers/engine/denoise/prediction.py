"""From what a network predicts to the denoised latent (Karras et al. 2022, table 1, for models trained on
noise or velocity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from workers.engine.discretisation import Discretisation


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model predicts and at which noise levels it was trained."""

    levels: Discretisation
    velocity: bool = False

    def scaled(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """What the network is shown of `x` (signal 1, noise sigma): unit variance."""
        return x / math.sqrt(sigma**2 + 1.0)

    def denoised(self, x: torch.Tensor, sigma: float, output: torch.Tensor) -> torch.Tensor:
        """The latent without its noise, given the network's output for `scaled(x, sigma)`."""
        if self.velocity:
            spread = sigma**2 + 1.0
            return output * (-sigma / math.sqrt(spread)) + x / spread
        return x - output * sigma
