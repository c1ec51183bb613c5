"""/api/v1/models: which models there are, what is known of them, and looking after them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from atelier.contract.errors import InvalidRequest, PayloadTooLarge
from atelier.contract.models import ModelKind
from portal.api.arrival import arrived
from portal.api.files import CSP
from portal.api.schema import UNCHANGED, also, content
from portal.api.security import Caller, require, services_of
from portal.services import model_previews
from portal.services.container import Services
from portal.services.model_desk import ModelChange
from portal.services.model_views import Details, Record, Wanted

router = APIRouter(prefix="/api/v1/models", tags=["models"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require("models.read"))]
Keeper = Annotated[Caller, Depends(require("models.manage"))]
Owner = Annotated[Caller, Depends(require("models.upload"))]
"""Who may have models of their own: others' are refused, unless they look after all."""
_PICTURE: dict[str, Any] = {
    "requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


class ModelView(BaseModel):
    """A model. `title` is what a request may name it by; so may name, filename, alias and the hashes. `size`
    in bytes, times in unix seconds.
    """

    id: str
    kind: ModelKind
    name: str
    title: str
    filename: str
    alias: str | None
    prompt_name: str
    """How a tag in a prompt calls it."""
    sha256: str
    short_hash: str
    legacy_hash: str | None
    addnet_hash: str | None
    size: int
    family: str | None
    """In force: `family_override`, else what the file tells."""
    detected_family: str | None
    family_override: str | None
    resolution: tuple[int, int] | None
    """Width and height in pixels it was trained at, where the file says so."""
    standard: bool
    """Whether it is used where a request names none."""
    folder: str
    description: str
    notes: str
    activation_text: str
    """Trigger words, for the prompt."""
    preferred_weight: float
    """0 where nobody prefers one."""
    negative_text: str
    sd_version: str
    vae: str
    """Of a checkpoint: the VAE that is used where a request leaves the choice; "None": the one inside it; "":
    none in particular.
    """
    preview_url: str | None
    created: float
    modified: float
    owner: str
    """The user's name; "" for the studio's own."""
    visibility: str
    """private, team or studio: who sees it besides its owner and whoever looks after models."""
    team: str | None
    missing_since: float | None
    """When its linked file was found to be gone; nobody can draw with it until it is found again."""

    @classmethod
    def of(cls, record: Record) -> Self:
        """The view of a model."""
        known = record.model.model_dump(exclude={"blob_sha256", "config_sha256"})
        return cls(
            id=record.id,
            title=record.model.title,
            prompt_name=record.prompt_name,
            standard=record.standard,
            detected_family=record.detected_family,
            family_override=record.family_override,
            folder=record.folder,
            preview_url=preview_url(record),
            created=record.created,
            modified=record.modified,
            missing_since=record.missing_since,
            owner=record.standing.owner,
            visibility=record.standing.visibility.value,
            team=record.standing.team,
            **known,
            **record.notes.model_dump(),
        )


class SuggestedWord(BaseModel):
    """A tag of the training pictures, and at how many of them it stood."""

    word: str
    count: int


class ModelDetails(ModelView):
    """A model with what its file says of itself."""

    metadata: dict[str, str]
    suggested_words: list[SuggestedWord]
    families: list[str]
    """What `family_override` may be."""

    @classmethod
    def told(cls, record: Record, details: Details) -> Self:
        """The view with the details."""
        words = [SuggestedWord(word=word, count=count) for word, count in details.suggested]
        known = ModelView.of(record).model_dump()
        return cls(**known, metadata=details.metadata, suggested_words=words, families=record.families)


class ModelPatch(BaseModel):
    """What to change; what is left out stays. An empty `family_override` gives the detected family back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    description: str | None = None
    notes: str | None = None
    activation_text: str | None = None
    preferred_weight: float | None = Field(None, allow_inf_nan=False)
    negative_text: str | None = None
    sd_version: str | None = None
    vae: str | None = None
    family_override: str | None = None
    standard: bool = False

    @property
    def change(self) -> ModelChange:
        """What the services are asked to do."""
        given = self.model_dump(exclude_none=True, exclude={"name", "family_override", "standard"})
        return ModelChange(self.name, given or None, self.family_override, self.standard)


class StandardRequest(BaseModel):
    """The checkpoint to be used where a request names none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str


class RefreshView(BaseModel):
    """What was new in the linked folders, found at another place, back in its own, and gone; and which files
    are no models, with the reason.
    """

    added: list[str]
    moved: list[str]
    returned: list[str]
    missing: list[str]
    refused: dict[str, str]


def preview_url(record: Record) -> str | None:
    """Where the model's preview is; the address changes with the picture."""
    if record.preview_sha256 is None:
        return None
    return f"/api/v1/models/{record.id}/preview?v={record.preview_sha256[:12]}"


@router.get("", response_model=list[ModelView])
def models(
    caller: Reader,
    services: ServicesOf,
    kind: ModelKind | None = None,
    family: Annotated[str | None, Query(max_length=40)] = None,
    search: Annotated[str, Query(max_length=200)] = "",
    folder: Annotated[str | None, Query(max_length=400)] = None,
    missing: bool = False,
) -> list[ModelView]:
    """Every model, or those of a kind, of a family with its variants, in a folder and below it, with all the
    searched words in name, description or trigger words. With `missing`, those whose linked files are gone
    too.
    """
    wanted = Wanted(kind, family, search, folder, missing)
    return [ModelView.of(record) for record in services.work.desk.records(wanted, caller)]


@router.put("/standard", response_model=ModelView, responses=also(404))
def make_standard(body: StandardRequest, caller: Keeper, services: ServicesOf) -> ModelView:
    """Let a checkpoint be the one used where a request names none."""
    found = services.work.models.make_standard(caller, body.name)
    checkpoints = services.work.desk.records(Wanted(ModelKind.CHECKPOINT))
    return ModelView.of(next(each for each in checkpoints if each.model.name == found.name))


@router.post("/refresh", response_model=RefreshView)
def refresh(caller: Reader, services: ServicesOf) -> RefreshView:
    """Register what is new in the folders that are linked in place, follow what was moved, and mark what is
    gone. Models that the caller may not see are not told of.
    """
    found = services.work.folders.refresh(caller)
    lists = {
        name: services.work.models.known_to(caller, getattr(found, name))
        for name in ("added", "moved", "returned", "missing")
    }
    titles = {name: [model.title for model in models] for name, models in lists.items()}
    return RefreshView(**titles, refused=dict(found.refused))


@router.get("/{model_id}", response_model=ModelDetails)
def model(model_id: str, caller: Reader, services: ServicesOf) -> ModelDetails:
    """One model with the metadata of its file and the trigger words that these suggest."""
    desk = services.work.desk
    return ModelDetails.told(desk.record(model_id, caller), desk.details(model_id))


@router.patch("/{model_id}", response_model=ModelView, responses=also(409))
def change_model(
    model_id: str, body: ModelPatch, request: Request, caller: Owner, services: ServicesOf
) -> ModelView:
    """Change a model's name, notes, trigger words, preferred weight or VAE, or family, or make it the
    standard one.
    """
    return ModelView.of(services.work.desk.change(caller, model_id, body.change, arrived(request).origin))


@router.delete("/{model_id}", status_code=204, responses=also(409))
def delete_model(model_id: str, request: Request, caller: Owner, services: ServicesOf) -> None:
    """Take a model away. Jobs that are accepted are still drawn with it."""
    services.work.desk.delete(caller, model_id, arrived(request).origin)


@router.get(
    "/{model_id}/preview", response_class=Response, responses=content(model_previews.MEDIA_TYPE) | UNCHANGED
)
def preview(
    model_id: str, caller: Reader, services: ServicesOf, if_none_match: Annotated[str, Header()] = ""
) -> Response:
    """The model's preview picture."""
    return preview_response(services, caller, model_id, if_none_match)


@router.put("/{model_id}/preview", response_model=ModelView, openapi_extra=_PICTURE)
async def set_preview(
    model_id: str,
    request: Request,
    caller: Owner,
    services: ServicesOf,
    picture: Annotated[str | None, Query(max_length=64, description="One of your own pictures.")] = None,
) -> ModelView:
    """Replace the preview, by the picture file in the body or by one of the caller's own pictures."""
    desk, origin = services.work.desk, arrived(request).origin
    if picture is not None:
        return ModelView.of(await run_in_threadpool(desk.set_preview_from, caller, model_id, picture, origin))
    data = await _sent_picture(request)
    return ModelView.of(await run_in_threadpool(desk.set_preview, caller, model_id, data, origin))


@router.delete("/{model_id}/preview", status_code=204)
def remove_preview(model_id: str, request: Request, caller: Owner, services: ServicesOf) -> None:
    """Take the preview away."""
    services.work.desk.remove_preview(caller, model_id, arrived(request).origin)


def preview_response(services: Services, caller: Caller, model_id: str, if_none_match: str = "") -> Response:
    """A preview as an answer, 304 where the browser has it. Raises NotFound."""
    data, sha256 = services.work.desk.preview(model_id, caller)
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Security-Policy": CSP,
        "X-Content-Type-Options": "nosniff",
    }
    if f'"{sha256}"' in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=model_previews.MEDIA_TYPE, headers=headers)


async def _sent_picture(request: Request) -> bytes:
    taken = bytearray()
    async for chunk in request.stream():
        taken += chunk
        if len(taken) > model_previews.MAX_BYTES:
            raise PayloadTooLarge(
                f"The picture is larger than {model_previews.MAX_BYTES // 2**20} MiB, the most there may be."
            )
    if not taken:
        raise InvalidRequest("Send a picture file as the body, or name a picture of yours: ?picture=ID.")
    return bytes(taken)
