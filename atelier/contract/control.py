"""A ControlNet unit of a part: what a picture is to keep of another one, resolved."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from atelier.contract.models import ModelRef

ControlMode = Literal["Balanced", "My prompt is more important", "ControlNet is more important"]
ResizeMode = Literal["Just Resize", "Crop and Resize", "Resize and Fill"]
Passes = Literal["Both", "Low res only", "High res only"]


class Preprocessing(BaseModel):
    """What a preprocessor makes its map with: its name, the resolution of the shorter side in pixels, its
    thresholds, and the model it needs, if any.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    module: str = "none"
    resolution: int | float = 512
    threshold_a: int | float = 0.5
    threshold_b: int | float = 0.5
    annotator: ModelRef | None = None


class ControlUnit(BaseModel):
    """A unit in use. `image` and `mask` are ids of stored inputs (atelier.contract.keys.asset)."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    number: int = Field(ge=0)
    """Of the unit in the request: the infotext's "ControlNet 0"."""
    called: str = "none"
    """The preprocessor as the request calls it."""
    preprocessing: Preprocessing = Preprocessing()
    pixel_perfect: bool = False
    """The preprocessor's resolution follows from the sizes of picture and result."""
    said_pixel_perfect: bool = False
    """Whether the request asks for that, of a preprocessor without a resolution too."""
    model: ModelRef | None = None
    model_called: str = ""
    """As the request calls it."""
    weight: float = 1.0
    image: str
    mask: str | None = None
    resize_mode: ResizeMode = "Crop and Resize"
    control_mode: ControlMode = "Balanced"
    guidance_start: float = Field(default=0.0, ge=0, le=1)
    guidance_end: float = Field(default=1.0, ge=0, le=1)
    passes: Passes = "Both"
    advanced_weighting: tuple[float, ...] | None = None
    """The strength of each output of the ControlNet, in place of `weight`."""
    shows_map: bool = True
    """Whether what the preprocessor made is to be kept beside the pictures."""

    def acts_in(self, *, second: bool) -> bool:
        """Whether it acts in the first or the second pass."""
        return self.passes != ("Low res only" if second else "High res only")
