"""Edges found by a network: holistically nested edge detection (Xie & Tu 2015), with the weights that are
published for ControlNet.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from atelier.contract.errors import ModelUnusable
from workers.engine.loader import weightfile
from workers.engine.loader.checkpoint import ModelFile, check
from workers.preprocessing.drawing import Numbers
from workers.preprocessing.pictures import Array, of_resolution
from workers.preprocessing.thinning import ridges

_LAYERS = (2, 2, 3, 3, 3)
"""Convolutions of each block; between two blocks the picture is halved."""


class _Block(torch.nn.Module):
    def __init__(self, inside: int, outside: int, layers: int) -> None:
        super().__init__()
        widths = [inside, *([outside] * layers)]
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.projection = torch.nn.Conv2d(outside, 1, 1)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What goes on to the next block, and this one's edges [1, 1, h, w]."""
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        return hidden, self.projection(hidden)


class Detector(torch.nn.Module):
    """The network. `widths` of its five blocks: 64, 128, 256, 512, 512 as published."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = torch.nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, (inside, outside) in enumerate(pairwise((3, *widths))):
            setattr(self, f"block{number + 1}", _Block(inside, outside, _LAYERS[number]))

    @property
    def size(self) -> int:
        """Bytes in host memory."""
        return sum(each.nbytes for each in self.parameters())

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """The edges each block finds in pictures [1, 3, h, w] of 0..255."""
        hidden, found = pictures - self.norm, []
        for number in range(len(_LAYERS)):
            if number:
                hidden = F.max_pool2d(hidden, 2)
            hidden, edges = getattr(self, f"block{number + 1}")(hidden)
            found.append(edges)
        return found


def read_detector(model: ModelFile) -> Detector:
    """The network in a safetensors file (converted from ControlNetHED.pth). Raises ModelUnusable."""
    tensors, _ = weightfile.read(model.bytes, lambda _: True)
    try:
        widths = tuple(tensors[f"block{each}.convs.0.weight"].shape[0] for each in range(1, 6))
        with torch.device("meta"):
            detector = Detector(widths)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ModelUnusable(
            f"{model.called} is no edge detector of the form of ControlNetHED.pth."
        ) from error
    wanted = {name: tensor.shape for name, tensor in detector.state_dict().items()}
    check(model.called, "edge detector", tensors, wanted, ())
    detector.load_state_dict({name: each.float() for name, each in tensors.items()}, assign=True)
    return detector.eval().requires_grad_(False)


Detect = Callable[[Array, Numbers], Array]


def edges(detector: Detector, picture: Array, numbers: Numbers, *, safe: bool = False) -> Array:
    """Soft edges [h, w, 3] of a picture. `safe`: in three levels, so that nothing of the picture hides in
    them.
    """
    scaled, cut = of_resolution(picture, numbers.resolution)
    height, width = scaled.shape[:2]
    with torch.inference_mode():
        shown = torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)[None]
        found = [each[0, 0].numpy() for each in detector(shown)]
    enlarged = [cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in found]
    mean = np.mean(np.stack(enlarged, axis=2), axis=2).astype(np.float64)
    edge = 1.0 / (1.0 + np.exp(-mean))
    if safe:
        edge = (edge.astype(np.float32) * 3.0).astype(np.int32).astype(np.float32) / 2.0
    whole = (edge * 255.0).clip(0, 255).astype(np.uint8)
    return cut(np.repeat(whole[..., None], 3, axis=2))


def scribble(detector: Detector, picture: Array, numbers: Numbers) -> Array:
    """The edges as somebody would scribble them: white lines of some width [h, w, 3] on black."""
    soft = edges(detector, picture, numbers)[..., 0]
    lines = _strong_ridges(soft, 127, 3.0)
    wide = cv2.GaussianBlur(lines, (0, 0), 3.0)
    return np.repeat(np.where(wide > 4, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def _strong_ridges(grey: Array, threshold: int, sigma: float) -> npt.NDArray[np.uint8]:
    blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma)
    return np.where(np.asarray(ridges(blurred), np.float32) > threshold, 255, 0).astype(np.uint8)
