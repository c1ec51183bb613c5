"""/controlnet: what the peer's ControlNet extension (API version 3) answers."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from atelier.contract.errors import InvalidRequest
from atelier.contract.models import ModelKind, ModelRef
from atelier.preprocessors import CONTROL_TYPES, SERVED, Preprocessor, find
from portal.api.apart import Apart
from portal.api.following import patience
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services
from portal.services.detections import Asked
from portal.services.model_views import Wanted

router = APIRouter(prefix="/controlnet", tags=["controlnet"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require_basic("models.read"))]
UNITS = 3
VERSION = 3
_MOST_IMAGES = 8
DRAWING = Apart("maps of preprocessors", 8)


@router.get("/version")
def version(_caller: Reader) -> dict[str, int]:
    """The version of this interface."""
    return {"version": VERSION}


@router.get("/settings")
def settings(_caller: Reader) -> dict[str, int]:
    """How many units the page has."""
    return {"control_net_unit_count": UNITS}


@router.get("/model_list")
def model_list(
    caller: Reader,
    services: ServicesOf,
    update: Annotated[bool, Query(description="Look for new files first.")] = True,
) -> dict[str, list[str]]:
    """The ControlNets, each as `name [hash]` with the eight digits of the peer's old hash."""
    if update and caller.may("models.manage"):
        services.work.folders.refresh(caller, (ModelKind.CONTROLNET,))
    return {"model_list": [titled(each) for each in _models(caller, services)]}


def _models(caller: Caller, services: Services) -> list[ModelRef]:
    return [each.model for each in services.work.desk.records(Wanted(ModelKind.CONTROLNET), caller)]


def titled(model: ModelRef) -> str:
    """A ControlNet as the peer lists it."""
    return f"{model.name} [{model.legacy_hash or model.short_hash[:8]}]"


@router.get("/module_list")
def module_list(
    _caller: Reader,
    alias_names: Annotated[bool, Query(description="By the names that the page shows.")] = False,
) -> dict[str, Any]:
    """The preprocessors that are run here, and their sliders."""
    names = {_name(each, alias=alias_names): each for each in SERVED}
    details = {name: {"model_free": False, "sliders": _sliders(each)} for name, each in names.items()}
    return {"module_list": list(names), "module_detail": details}


def _name(each: Preprocessor, *, alias: bool) -> str:
    return each.shown if alias else each.name


def _sliders(each: Preprocessor) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "value": one.value, "min": one.low, "max": one.high, "step": one.step}
        for one in each.sliders
    ]


@router.get("/control_types")
def control_types(caller: Reader, services: ServicesOf) -> dict[str, Any]:
    """Preprocessors and models by what they are for."""
    models = [titled(each) for each in _models(caller, services)]
    return {"control_types": {kind: _of_type(kind, models) for kind in CONTROL_TYPES}}


def _of_type(kind: str, models: list[str]) -> dict[str, Any]:
    everything = kind == "All"
    modules = [
        "none",
        *(each.name for each in SERVED if each.name != "none" and (everything or kind in each.tags)),
    ]
    fitting = models if everything else [each for each in models if kind.lower() in each.lower()]
    return {
        "module_list": modules,
        "model_list": ["None", *fitting],
        "default_option": "none" if everything or len(modules) == 1 else _standard(kind, modules),
        "default_model": "None" if everything or not fitting else fitting[0],
    }


def _standard(kind: str, modules: list[str]) -> str:
    """The preprocessor that a type begins with: the one of its name, else the first that does something."""
    named = [each for each in modules if each == kind.lower()]
    useful = [each for each in modules if each not in ("none", "invert")]
    return (named or useful or modules)[0]


class DetectRequest(BaseModel):
    """The peer's fields; its clients say `controlnet_images` too."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    controlnet_module: str = Field("none", max_length=100)
    controlnet_input_images: list[str] = Field(
        default=[], validation_alias=AliasChoices("controlnet_input_images", "controlnet_images")
    )
    controlnet_processor_res: float = -1
    controlnet_threshold_a: float = -1
    controlnet_threshold_b: float = -1
    controlnet_masks: list[str] = []
    low_vram: bool = False


class DetectAnswer(BaseModel):
    """The maps as base64 PNG."""

    images: list[str]
    info: str = "Success"


@router.post("/detect", response_model=DetectAnswer)
async def detect(
    asked: DetectRequest,
    caller: Annotated[Caller, Depends(require_basic("jobs.submit"))],
    services: ServicesOf,
    prefer: Annotated[str, Header(max_length=200)] = "",
) -> DetectAnswer:
    """What a preprocessor makes of pictures. Everybody has one call for maps at a time.
    `Prefer: wait=SECONDS` bounds the wait for all of them.
    """
    module, images, masks = (
        find(asked.controlnet_module),
        asked.controlnet_input_images,
        asked.controlnet_masks,
    )
    if not images:
        raise InvalidRequest("No image selected: give them in `controlnet_input_images`.")
    if len(images) > _MOST_IMAGES:
        raise InvalidRequest(f"{len(images)} images at once; at most {_MOST_IMAGES} may be.")
    if "inpaint" in module.name and len(masks) != len(images):
        raise InvalidRequest("Inpainting needs a mask for each image, in `controlnet_masks`.")
    wanted = [
        Asked(
            module.name,
            image,
            masks[number] if number < len(masks) else None,
            asked.controlnet_processor_res,
            asked.controlnet_threshold_a,
            asked.controlnet_threshold_b,
        )
        for number, image in enumerate(images)
    ]
    within = patience(services.settings, prefer)
    maps = await DRAWING.run(lambda: services.detections.made(caller, wanted, within))
    return DetectAnswer(images=[base64.b64encode(each).decode() for each in maps])
