"""/sdapi/v1/{sd-models,sd-vae,loras,hypernetworks,embeddings} and refresh-*: the peer's lists of models, of
ours.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from atelier.contract.models import ModelKind
from portal.api.security import Caller, require_basic, services_of
from portal.services.container import Services
from portal.services.model_views import Record, Wanted

router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require_basic("models.read"))]

FOLDERS = {
    ModelKind.CHECKPOINT: "models/Stable-diffusion",
    ModelKind.VAE: "models/VAE",
    ModelKind.LORA: "models/Lora",
    ModelKind.EMBEDDING: "embeddings",
    ModelKind.HYPERNETWORK: "models/hypernetworks",
}
"""Where the peer keeps each kind. Ours have no path a client could use: the name below it is what clients
show, and no folder of this machine is told.
"""


def path_of(record: Record) -> str:
    """A model's path as the peer would say it."""
    parts = (FOLDERS.get(record.model.kind, "models"), record.folder, record.model.filename)
    return "/".join(part for part in parts if part)


@router.get("/sd-models")
def sd_models(caller: Reader, services: ServicesOf) -> list[dict[str, Any]]:
    """The checkpoints."""
    return [_checkpoint(each) for each in services.work.desk.records(Wanted(ModelKind.CHECKPOINT), caller)]


def _checkpoint(record: Record) -> dict[str, Any]:
    model, path = record.model, path_of(record)
    return {
        "title": model.title,
        "model_name": model.name,
        "hash": model.short_hash,
        "sha256": model.sha256,
        "filename": path,
        "config": f"{path.rsplit('.', 1)[0]}.yaml" if model.config_sha256 else None,
    }


@router.get("/sd-vae")
def sd_vae(caller: Reader, services: ServicesOf) -> list[dict[str, str]]:
    """The VAE files."""
    found = services.work.desk.records(Wanted(ModelKind.VAE), caller)
    return [{"model_name": each.model.filename, "filename": path_of(each)} for each in found]


@router.get("/loras")
def loras(caller: Reader, services: ServicesOf) -> list[dict[str, Any]]:
    """The LoRAs and their relatives, with the metadata of their files."""
    return [
        {
            "name": record.model.name,
            "alias": record.model.alias or record.model.name,
            "path": path_of(record),
            "metadata": details.get("metadata") or {},
        }
        for record, details in services.work.desk.all_details(ModelKind.LORA, caller)
    ]


@router.get("/hypernetworks")
def hypernetworks(caller: Reader, services: ServicesOf) -> list[dict[str, str]]:
    """The hypernetworks."""
    found = services.work.desk.records(Wanted(ModelKind.HYPERNETWORK), caller)
    return [{"name": each.model.name, "path": path_of(each)} for each in found]


@router.get("/embeddings")
def embeddings(caller: Reader, services: ServicesOf) -> dict[str, dict[str, Any]]:
    """The textual inversions: `loaded` fit the caller's checkpoint, `skipped` are of another family."""
    family = _family_in_use(caller, services)
    sorted_by_use: dict[str, dict[str, Any]] = {"loaded": {}, "skipped": {}}
    for record, details in services.work.desk.all_details(ModelKind.EMBEDDING, caller):
        theirs = _base(record.model.family)
        fits = not family or not theirs or family == theirs
        told = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
        told |= details.get("embedding") or {}
        sorted_by_use["loaded" if fits else "skipped"][record.model.name] = told
    return sorted_by_use


def _family_in_use(caller: Caller, services: Services) -> str:
    chosen = services.own_settings.shown(caller).get("sd_model_checkpoint")
    checkpoints = services.work.desk.records(Wanted(ModelKind.CHECKPOINT), caller)
    used = (each for each in checkpoints if (each.model.answers_to(chosen) if chosen else each.standard))
    return next((_base(each.model.family) for each in used), "")


def _base(family: str | None) -> str:
    return (family or "").split("-")[0]


def _refresh(*kinds: ModelKind) -> Any:
    def refresh(caller: Reader, services: ServicesOf) -> None:
        """Register what is new in the folders that are linked in place."""
        services.work.folders.refresh(caller, kinds)

    return refresh


for _name, _kind in (
    ("checkpoints", ModelKind.CHECKPOINT),
    ("vae", ModelKind.VAE),
    ("loras", ModelKind.LORA),
    ("embeddings", ModelKind.EMBEDDING),
):
    router.add_api_route(f"/refresh-{_name}", _refresh(_kind), methods=["POST"], name=f"refresh_{_name}")
