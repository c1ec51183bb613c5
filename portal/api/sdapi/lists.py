"""GET /sdapi/v1/{samplers,schedulers,prompt-styles,scripts,script-info}: what the peer's clients fill their
menus with.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from atelier.scripts.catalogue import SCRIPTS
from atelier.scripts.catalogue import script_info as peer_script_info
from atelier.vocabulary import SAMPLERS, SCHEDULERS
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require_basic("models.read"))]


@router.get("/samplers")
def samplers(_caller: Reader) -> list[dict[str, Any]]:
    """The peer's samplers. One that is not served yet is refused with a sentence when it is asked for."""
    return [{"name": each.name, "aliases": list(each.aliases), "options": each.options} for each in SAMPLERS]


@router.get("/schedulers")
def schedulers(_caller: Reader) -> list[dict[str, Any]]:
    """The peer's noise schedules."""
    return [
        {
            "name": each.name,
            "label": each.label,
            "aliases": list(each.aliases) if each.aliases else None,
            "default_rho": each.default_rho,
            "need_inner_model": each.need_inner_model,
        }
        for each in SCHEDULERS
    ]


@router.get("/prompt-styles")
def prompt_styles(
    caller: Annotated[Caller, Depends(require_basic("styles.read"))], services: ServicesOf
) -> list[dict[str, str]]:
    """The styles that a request of the caller may name."""
    return [view.style._asdict() for view in services.styles.listed(caller)]


@router.get("/scripts")
def scripts(_caller: Reader) -> dict[str, list[str]]:
    """The scripts that are served, by the names to ask for them."""
    return {"txt2img": [each.script for each in SCRIPTS], "img2img": []}


@router.get("/script-info")
def script_info(_caller: Reader) -> list[dict[str, Any]]:
    """What the served scripts take, in the order of their positional lists."""
    return peer_script_info()
