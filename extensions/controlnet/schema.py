"""What `alwayson_scripts.controlnet` means: names into models and preprocessors, numbers into bounds, and
what the infotext says of it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from atelier import preprocessors
from atelier.contract.control import ControlUnit, Preprocessing
from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import ResolvedPart
from atelier.extension import ControlMeaning, hookimpl
from atelier.preprocessors import NOTHING, Preprocessor, Slider
from extensions.controlnet import text
from extensions.controlnet.lifting import Keep, lifted
from extensions.controlnet.units import Unit, Units

TITLE = "controlnet"
_UNUSED = {
    "low_vram": "a worker decides by its memory what lies where",
    "effective_region_mask": "a unit acts on the whole picture",
    "ipadapter_input": "IP-Adapters are not served",
    "union_control_type": "union ControlNets are not served",
}
"""Fields of a unit that change nothing, and why."""


@hookimpl
def schema() -> dict[str, type[BaseModel]]:
    """The member `controlnet`."""
    return {TITLE: Units}


@hookimpl
def lift(title: str, member: Any, keep: Keep) -> Any:
    """The member with its pictures stored."""
    return lifted(member, keep) if title == TITLE else None


@hookimpl
def control(title: str, member: BaseModel, catalogue: Catalogue) -> ControlMeaning | None:
    """The units in use. Raises InvalidRequest, UnknownName."""
    if title != TITLE or not isinstance(member, Units):
        return None
    used = [(number, unit) for number, unit in enumerate(member.args) if unit.enabled]
    ignored = [
        (f"alwayson_scripts.controlnet.args.{number}.{field}", reason)
        for number, unit in used
        for field, reason in _UNUSED.items()
        if field in unit.model_fields_set and getattr(unit, field) != Unit.model_fields[field].default
    ]
    if member.args and not used:
        ignored.append(("alwayson_scripts.controlnet", "no unit of it is enabled"))
    return ControlMeaning(tuple(_unit(number, unit, catalogue) for number, unit in used), tuple(ignored))


def _unit(number: int, unit: Unit, catalogue: Catalogue) -> ControlUnit:
    where = f"alwayson_scripts.controlnet.args.{number}"
    found = preprocessors.find(unit.module)
    if not unit.names_a_model:
        raise InvalidRequest(
            f"The ControlNet unit {number} names no model. Choose one (GET /controlnet/model_list has them).",
            detail={"field": f"{where}.model"},
        )
    if unit.image is None:
        raise InvalidRequest(
            f"The ControlNet unit {number} has no image. Give one as base64, a data URL, or the id of an "
            "uploaded picture.",
            detail={"field": f"{where}.image"},
        )
    return ControlUnit(
        number=number,
        called=unit.module,
        preprocessing=_preprocessing(unit, found, catalogue),
        pixel_perfect=unit.pixel_perfect and found.resolution is not None,
        model=model_named(catalogue, unit.model),
        model_called=unit.model,
        weight=unit.weight,
        image=unit.image,
        mask=unit.mask,
        resize_mode=unit.resize_mode,
        control_mode=unit.control_mode,
        guidance_start=unit.guidance_start,
        guidance_end=unit.guidance_end,
        passes=unit.hr_option,
        advanced_weighting=tuple(unit.advanced_weighting) if unit.advanced_weighting else None,
        shows_map=unit.save_detected_map,
        said_pixel_perfect=unit.pixel_perfect,
    )


def _preprocessing(unit: Unit, found: Preprocessor, catalogue: Catalogue) -> Preprocessing:
    return Preprocessing(
        module=found.name,
        resolution=_taken(found.resolution, unit.processor_res),
        threshold_a=_taken(found.a, unit.threshold_a),
        threshold_b=_taken(found.b, unit.threshold_b),
        annotator=preprocessors.annotator(catalogue, found),
    )


def _taken(slider: Slider | None, value: float) -> float:
    return (slider or NOTHING).taken(value)


def model_named(catalogue: Catalogue, name: str) -> ModelRef:
    """The ControlNet of that name, file name, title or hash. Raises UnknownName."""
    model = catalogue.find(ModelKind.CONTROLNET, name)
    if model is not None:
        return model
    if gone := catalogue.gone(ModelKind.CONTROLNET, name):
        raise InvalidRequest(f"The file {gone.filename} was moved or deleted. Choose another ControlNet.")
    known = [each.name for each in catalogue.of_kind(ModelKind.CONTROLNET)]
    raise UnknownName.of("ControlNet", name, known)


@hookimpl
def infotext(part: ResolvedPart, index: int) -> dict[str, Any]:
    """`ControlNet 0` and so on: what each unit says of itself."""
    return {f"ControlNet {unit.number}": text.written(unit) for unit in part.control}
