"""What the training phases share: the clock, resumable state on disk, averaged weights."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger("demo")


@dataclass
class Clock:
    """The minutes this run may take, and when to write state down."""

    minutes: float
    every: float = 180.0
    started: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def stop(self) -> None:
        """Let the time be over now."""
        self.stopped = True

    def out_of_time(self) -> bool:
        """Whether this run has to stop and leave the rest to the next."""
        return self.stopped or time.monotonic() - self.started > 60 * self.minutes

    def should_save(self) -> bool:
        """True every few minutes."""
        if time.monotonic() - self.saved < self.every:
            return False
        self.saved = time.monotonic()
        return True


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a phase's state so that an interruption leaves the older one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_state(path: Path) -> dict[str, Any] | None:
    """A phase's state, None before its first checkpoint."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class Average:
    """An exponential moving average of a module's parameters, quick to follow at first."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the module's present values."""
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Follow the module after an optimiser step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.values[k], v) for k, v in module.state_dict().items()]
        floats = [(a, v) for a, v in pairs if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [v for _, v in floats], 1 - decay)


def rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The learning rate: a short warm-up, then a cosine down to a fiftieth."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class Phase:
    """One resumable training loop: modules by name, one optimiser, an average of each."""

    path: Path
    modules: dict[str, nn.Module]
    peaks: dict[str, float]
    steps: int
    decay: float = 0.999
    warmup: int = 100
    step: int = 0

    def __post_init__(self) -> None:
        """Make the optimiser and the averages, then resume what is on disk."""
        groups = [
            {"params": list(module.parameters()), "name": name} for name, module in self.modules.items()
        ]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
        self.averages = {name: Average(module, self.decay) for name, module in self.modules.items()}
        state = load_state(self.path)
        if state is not None:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.step = int(state["step"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            self.averages[name].values = state["averages"][name]

    def save(self) -> None:
        """Write everything needed to continue."""
        save_state(
            self.path,
            {
                "step": self.step,
                "optimiser": self.optimiser.state_dict(),
                "modules": {name: module.state_dict() for name, module in self.modules.items()},
                "averages": {name: average.values for name, average in self.averages.items()},
            },
        )

    def run(self, loss_of: Callable[[int], Tensor], clock: Clock, saved: Callable[[], None]) -> bool:
        """Train until the phase is done (True) or the clock runs out (False)."""
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        recent, since = 0.0, time.monotonic()
        while self.step < self.steps and not clock.out_of_time():
            for group in self.optimiser.param_groups:
                group["lr"] = rate(self.step, self.steps, self.peaks[group["name"]], self.warmup)
            loss = loss_of(self.step)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.step += 1
            for name, module in self.modules.items():
                self.averages[name].update(module, self.step)
            recent += float(loss.detach())
            if self.step % 50 == 0:
                pace = (time.monotonic() - since) / 50
                log.info("%s %d: loss %.4f, %.3f s", self.path.stem, self.step, recent / 50, pace)
                recent, since = 0.0, time.monotonic()
            if clock.should_save():
                self.save()
                saved()
        self.save()
        return self.step >= self.steps
