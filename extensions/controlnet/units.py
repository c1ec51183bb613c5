"""A unit as a request has it: the peer's fields, defaults and aliases (ControlNet 1.1.455)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from atelier.contract.control import ControlMode, Passes, ResizeMode

MOST_UNITS = 10
_NO_MODEL = ("", "none")
_RESIZE = {
    "Scale to Fit (Inner Fit)": "Crop and Resize",
    "Inner Fit (Scale to Fit)": "Crop and Resize",
    "Envelope (Outer Fit)": "Resize and Fill",
    "Outer Fit (Shrink to Fit)": "Resize and Fill",
}
"""What older clients call the modes."""
_BY_NUMBER = ("Just Resize", "Crop and Resize", "Resize and Fill")
_MODES_BY_NUMBER = ("Balanced", "My prompt is more important", "ControlNet is more important")
_OUTPUTS = (13, 10)
"""Of a ControlNet for SD1 and SD2, and of one for SDXL."""


class Unit(BaseModel):
    """One unit. `image` and `mask` are ids of stored pictures by the time it is checked (see `lifted`)."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    enabled: bool = False
    module: str = Field(default="none", max_length=100)
    model: str = Field(default="None", max_length=300)
    weight: float = Field(default=1.0, ge=0, le=2)
    image: str | None = Field(default=None, validation_alias=AliasChoices("image", "input_image"))
    mask: str | None = Field(default=None, validation_alias=AliasChoices("mask", "mask_image"))
    resize_mode: ResizeMode = "Crop and Resize"
    low_vram: bool = Field(default=False, validation_alias=AliasChoices("low_vram", "lowvram"))
    processor_res: int = -1
    threshold_a: float = -1
    threshold_b: float = -1
    guidance_start: float = Field(default=0.0, ge=0, le=1)
    guidance_end: float = Field(
        default=1.0, ge=0, le=1, validation_alias=AliasChoices("guidance_end", "guidance")
    )
    pixel_perfect: bool = False
    control_mode: ControlMode = "Balanced"
    inpaint_crop_input_image: bool = True
    hr_option: Passes = "Both"
    save_detected_map: bool = True
    advanced_weighting: list[float] | None = None
    effective_region_mask: Any = None
    pulid_mode: str = "Fidelity"
    union_control_type: str = "Unknown"
    ipadapter_input: Any = None

    @field_validator("model", "module", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """null means none."""
        return "None" if value is None else value

    @field_validator("resize_mode", mode="before")
    @classmethod
    def _resize_mode(cls, value: Any) -> Any:
        if type(value) is int and 0 <= value < len(_BY_NUMBER):
            return _BY_NUMBER[value]
        return _RESIZE.get(value, value) if isinstance(value, str) else value

    @field_validator("control_mode", mode="before")
    @classmethod
    def _control_mode(cls, value: Any) -> Any:
        if type(value) is int and 0 <= value < len(_MODES_BY_NUMBER):
            return _MODES_BY_NUMBER[value]
        return value

    @field_validator("hr_option", mode="before")
    @classmethod
    def _passes(cls, value: Any) -> Any:
        return str(value).strip() if value is not None else "Both"

    @model_validator(mode="after")
    def _possible(self) -> Unit:
        if self.enabled and self.guidance_start > self.guidance_end:
            raise ValueError(
                f"guidance_start ({self.guidance_start}) lies behind guidance_end ({self.guidance_end})"
            )
        if self.enabled and self.advanced_weighting and len(self.advanced_weighting) not in _OUTPUTS:
            counts = " or ".join(f"{each}" for each in _OUTPUTS)
            raise ValueError(
                f"advanced_weighting has {len(self.advanced_weighting)} strengths; a ControlNet has "
                f"{counts} outputs"
            )
        return self

    @property
    def names_a_model(self) -> bool:
        """Whether it says which ControlNet to use."""
        return self.model.strip().lower() not in _NO_MODEL


class Units(BaseModel):
    """`alwayson_scripts.controlnet`."""

    model_config = ConfigDict(extra="ignore")

    args: list[Unit] = Field(default=[], max_length=MOST_UNITS)

    @field_validator("args", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One unit may stand for a list of one; what is no unit (a flag of the page) is none."""
        listed = [value] if isinstance(value, dict) else value
        return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else listed


Where = Literal["image", "mask"]
PICTURES: tuple[tuple[Where, tuple[str, ...]], ...] = (
    ("image", ("image", "input_image")),
    ("mask", ("mask", "mask_image")),
)
"""Members of a unit that hold pictures, with the names they may have."""
