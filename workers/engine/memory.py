"""What fits: an estimate of a picture's working memory, checked before it is admitted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from atelier.contract.errors import OutOfMemory
from workers.engine.loader.architecture import UNetShape, VaeShape

_DECODER_MAPS = 7
"""Full-size feature maps of the widest last level that a decode holds at its peak (measured: 5 to 6)."""
_UNET_MAPS = 24
"""Feature maps of the first level that a row holds at its peak: skip connections, a transformer's inner layer
(8 widths).
"""
_ROUNDING = 64


def of_machine(device: str) -> int:
    """Bytes an engine may use on `device`: nine tenths of a GPU's free memory, two thirds of the host's
    available memory.
    """
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.9)
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with Path("/proc/meminfo").open() as lines:
            pages = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    return int(pages * 2 / 3)


def for_files(device: str, whole: int) -> int:
    """Bytes of model files an engine that may use `whole` bytes of `device` keeps in host memory: half of
    them on a CPU, whose memory is the host's; beside a GPU a third of what the host has available, as it is
    page-locked there.
    """
    return of_machine("cpu") // 2 if device.startswith("cuda") else whole // 2


@dataclass(frozen=True)
class Footprint:
    """Bytes of working memory as a function of the picture's size, for one pair of networks."""

    unet: UNetShape
    vae: VaeShape
    itemsize: int

    def picture(self, width: int, height: int, rows: int = 2) -> int:
        """Bytes one picture (pixels) needs while `rows` rows of it are evaluated and it is decoded."""
        # the last level of the decoder still has the channels of the level before it where it begins
        channels = max(self.vae.widths[:2])
        decode = width * height * channels * _DECODER_MAPS
        evaluated = rows * (width // 8) * (height // 8) * self.unet.widths[0] * _UNET_MAPS
        return (decode + evaluated) * self.itemsize

    def check(self, width: int, height: int, available: int, rows: int = 2) -> None:
        """OutOfMemory, naming the largest square that fits, where the picture needs more than `available`
        bytes.
        """
        needed = self.picture(width, height, rows)
        if needed <= available:
            return
        per_pixel = needed / (width * height)
        side = int((available / per_pixel) ** 0.5) // _ROUNDING * _ROUNDING
        hint = (
            f"the largest square that fits is {side}x{side}" if side else "not even the smallest picture fits"
        )
        raise OutOfMemory(
            f"A picture of {width}x{height} needs about {needed >> 20} MiB "
            f"and this worker has {available >> 20} MiB: {hint}.",
            detail={"needed": needed, "available": available, "side": side},
        )
