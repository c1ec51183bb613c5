"""The ControlNet units of a part, made ready on a reader's thread: their networks read, their maps drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from atelier.contract.control import ControlUnit, Preprocessing
from atelier.contract.errors import InvalidRequest, ModelUnusable
from atelier.contract.models import ModelRef
from atelier.contract.parts import ResolvedPart
from workers.engine.annotators import Annotator, OpenAnnotator, open_any
from workers.engine.denoise.control import Timed, scales
from workers.engine.host_cache import HostCache
from workers.engine.loader.architecture import ControlShape, UNetShape
from workers.engine.loader.checkpoint import ModelFile, Weights
from workers.engine.loader.control import read_control
from workers.engine.noise.sources import Upload
from workers.engine.rows import Control, Hint
from workers.preprocessing import pictures
from workers.preprocessing.drawing import Numbers
from workers.preprocessing.pictures import Array, Size

OpenInput = Callable[[str], bytes]
"""Gives a stored input picture by its id. Raises InvalidRequest where it is gone."""
_LINES_OF_PIXELS = ("canny", "mlsd")
"""Preprocessors whose lines are thin: enlarged, they act softly (the peer's rule for a second pass)."""
_SHUFFLES = "shuffle"
"""In the name of a model of which the mean of each channel acts, as its published configuration says."""


@dataclass(frozen=True, eq=False)
class ControlMap:
    """What a preprocessor made for unit `unit`: uint8 [h, w, 3]."""

    unit: int
    pixels: Array


@dataclass(frozen=True, eq=False)
class ReadyUnit:
    """A unit with its network and its maps ([h, w, 3], or 4 with a mask) for both passes; None for a pass
    in which it does not act.
    """

    unit: ControlUnit
    network: Weights
    first: Array | None
    second: Array | None = None

    @property
    def maps(self) -> list[ControlMap]:
        """Its maps to be shown, the second pass's first, as in the peer."""
        made = [each for each in (self.second, self.first) if each is not None]
        return [ControlMap(self.unit.number, shown(each)) for each in made] if self.unit.shows_map else []

    def fits(self, unet: UNetShape) -> bool:
        """Whether it can act on that UNet."""
        shape = self.network.shape
        assert isinstance(shape, ControlShape)
        return shape.fits(unet)

    def timed(self, upload: Upload, *, second: bool) -> Timed | None:
        """How it acts in a pass; None where it does not."""
        made, unit = (self.second if second else self.first), self.unit
        if made is None:
            return None
        forced = second and any(each in unit.preprocessing.module for each in _LINES_OF_PIXELS)
        pooled = unit.model is not None and _SHUFFLES in unit.model.name.lower()
        strength = scales(
            outputs_of(self.network),
            unit.weight,
            soft=forced or unit.control_mode != "Balanced",
            own=unit.advanced_weighting,
        )
        control = Control(self.network, Hint(upload(_tensor(made))), strength, pooled)
        cond_only = pooled or unit.control_mode == "ControlNet is more important"
        return Timed(control, unit.guidance_start, unit.guidance_end, cond_only)


def outputs_of(network: Weights) -> int:
    """How many outputs a ControlNet has."""
    shape = network.shape
    assert isinstance(shape, ControlShape)
    # the first convolution, each block, the end of each level but the last, the middle
    return 1 + len(shape.unet.widths) * (shape.unet.blocks + 1)


def shown(made: Array) -> Array:
    """A map as people see it: where it has a mask, what is to be made anew is black."""
    if made.shape[2] == 3:
        return made
    return np.where(made[..., 3:] > 127, 0, made[..., :3]).astype(np.uint8)


def _tensor(made: Array) -> torch.Tensor:
    """[3, h, w] in 0..1; what a mask marks is -1 (the protocol of inpainting ControlNets)."""
    values = torch.from_numpy(made).permute(2, 0, 1).float() / 255.0
    if len(values) == 3:
        return values.contiguous()
    marked = (values[3:] > 0.5).float()
    return (values[:3] * (1.0 - marked) - marked).contiguous()


def no_inputs(asset: str) -> bytes:
    """For an engine that was given no store of inputs."""
    raise InvalidRequest(f"The input picture {asset[:40]!r} is not here.")


class Units:
    """Makes units ready. `open_model` gives the file of a model, `open_input` a stored picture."""

    def __init__(
        self,
        host: HostCache,
        open_model: Callable[[ModelRef], ModelFile],
        open_input: OpenInput = no_inputs,
        open_annotator: OpenAnnotator = open_any,
        *,
        pinned: bool = False,
    ) -> None:
        self._host, self._open_model = host, open_model
        self._open_input, self._open_annotator, self._pinned = open_input, open_annotator, pinned

    def ready(self, part: ResolvedPart) -> tuple[ReadyUnit, ...]:
        """The part's units. Raises InvalidRequest, ModelUnusable."""
        return tuple(self._ready(part, unit) for unit in part.control)

    def _ready(self, part: ResolvedPart, unit: ControlUnit) -> ReadyUnit:
        if unit.model is None:
            raise InvalidRequest(f"The ControlNet unit {unit.number} names no model.")
        first, second = Size(part.width, part.height), part.hires and Size(*part.hires.size)
        seed = part.seeds[0] + part.subseeds[0]
        made = self._map(unit, first, seed)
        network, own = self._network(unit.model), unit.advanced_weighting
        if own is not None and len(own) != outputs_of(network):
            raise InvalidRequest(
                f"The advanced_weighting of the ControlNet unit {unit.number} has {len(own)} strengths; "
                f"{unit.model.name} has {outputs_of(network)} outputs and wants one for each."
            )
        return ReadyUnit(
            unit,
            network,
            pictures.fitted(made, first, unit.resize_mode) if unit.acts_in(second=False) else None,
            pictures.fitted(made, second, unit.resize_mode) if second and unit.acts_in(second=True) else None,
        )

    def _network(self, model: ModelRef) -> Weights:
        name = f"controlnet:{model.blob_sha256}"
        return self._host.get(name, lambda: read_control(self._open_model(model), name, pinned=self._pinned))

    def _map(self, unit: ControlUnit, size: Size, seed: int) -> Array:
        """The preprocessor's map of the unit's picture, in its own size."""
        picture = pictures.read(self._open_input(unit.image))
        mask = None if unit.mask is None else pictures.read_mask(self._open_input(unit.mask))
        how = unit.preprocessing
        if how.module == "inpaint":
            return _with_mask(picture, mask)
        if mask is not None:  # what is drawn over a picture is the map, as in the peer
            return np.repeat(mask[..., None], 3, axis=2)
        if unit.pixel_perfect:
            perfect = pictures.perfect(picture, size, unit.resize_mode)
            how = how.model_copy(update={"resolution": perfect})
        return self.draw(how, picture, seed)

    def draw(self, how: Preprocessing, picture: Array, seed: int) -> Array:
        """The map that a preprocessor makes of `picture` [h, w, 3]."""
        blob = how.annotator.blob_sha256 if how.annotator else ""
        annotator = self._host.get(f"annotator:{how.module}:{blob}", partial(self._annotator, how))
        return annotator.draw(picture, Numbers(how.resolution, how.threshold_a, how.threshold_b, seed))

    def _annotator(self, how: Preprocessing) -> Annotator:
        path = None if how.annotator is None else self._open_model(how.annotator).path
        found = self._open_annotator(how, path)
        if found is None:
            raise ModelUnusable(
                f"This worker has no extension in use for the preprocessor {how.module!r}. "
                "atelier extensions check says why."
            )
        return found


def _with_mask(picture: Array, mask: Array | None) -> Array:
    """[h, w, 4]: a picture and what of it is to be made anew. Raises InvalidRequest."""
    if mask is None:
        mask = np.zeros(picture.shape[:2], dtype=np.uint8)
    if mask.shape != picture.shape[:2]:
        sizes = [f"{each.shape[1]}x{each.shape[0]}" for each in (mask, picture)]
        raise InvalidRequest(
            f"The mask of a ControlNet unit is {sizes[0]} and its image {sizes[1]}: give both in one size."
        )
    return np.concatenate([picture, mask[..., None]], axis=2)
