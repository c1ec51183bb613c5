"""The demo checkpoint's training as a recipe: what may be asked of it, and how it is run."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from workers.training.demo.state import Clock
from workers.training.demo.train import Steps, train

FILE = "atelier-demo.safetensors"


class DemoOptions(BaseModel):
    """Hyperparameters of the recipe `demo`. It draws its own pictures, so it takes no data."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    minutes: float = Field(600.0, gt=0, le=28 * 24 * 60)
    """How long this run may take; what is not done then is left to the next."""
    threads: int = Field(1, ge=1, le=256)
    """CPU threads of one operation."""
    vae_steps: int = Field(1800, ge=1, le=10**6)
    text_steps: int = Field(2000, ge=1, le=10**6)
    unet_steps: int = Field(2000, ge=1, le=10**6)


def run(options: DemoOptions, model: Path, state: Path, clock: Clock) -> bool:
    """Train into the folder `model`, going on from what is in the folder `state`; False where the clock ran
    out before.
    """
    torch.set_num_threads(options.threads)
    model.mkdir(parents=True, exist_ok=True)
    steps = Steps(options.vae_steps, options.text_steps, options.unet_steps)
    return train(model / FILE, state, steps, clock)
