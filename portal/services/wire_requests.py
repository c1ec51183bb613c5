"""Bodies of the published wire and of the plain schema as requests for jobs whose answer somebody fetches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from atelier import wire
from atelier.contract import plain
from atelier.contract.errors import InvalidRequest
from atelier.contract.jobs import JobRequest
from atelier.contract.models import Catalogue
from atelier.contract.plain import Output, PlainRequest
from atelier.ignored import Ignored
from atelier.resolve import Draw, Resolution, parse_payload
from atelier.resolve.plain import resolve_plain

Form = Literal["published", "plain"]


@dataclass(frozen=True)
class Wish:
    """How a job is answered: the schema of its request, where the pictures go, and what of the body nothing
    reads. `plain`: the request, where it is of the plain schema.
    """

    form: Form
    output: Output
    ignored: tuple[Ignored, ...] = ()
    plain: PlainRequest | None = None

    def told(self) -> dict[str, Any]:
        """All of it as JSON: what a repeated request must be equal in."""
        return {
            "form": self.form,
            "output": self.output,
            "plain": self.plain.model_dump(mode="json") if self.plain else None,
        }


def read(body: Mapping[str, Any], endpoint: str) -> tuple[JobRequest, Wish]:
    """The request of a body for the endpoint of that name, and how it is answered. Raises InvalidRequest and
    its kin.
    """
    if "task" in body:
        task = wire.task_of(body, "This studio")
        payload = wire.payload_of(body)
        wish = Wish("published", wire.output_of(body) or "base64", tuple(wire.unheeded(body, payload)))
        request = {"task": task.value, "model": wire.model_of(body), "txt2img_payload": payload}
        return JobRequest.model_validate(request | {"endpoint": endpoint}), wish
    if plain.is_plain(body):
        asked = plain.parse(body)
        request = {"model": asked.model, "txt2img_payload": _payload(asked)}
        wish = Wish("plain", asked.output or "base64", plain=asked)
        return JobRequest.model_validate(request | {"endpoint": endpoint}), wish
    raise InvalidRequest(
        "This body is of no kind that is served: a plain request has a `prompt` (or `inputs`), a task of the "
        'published wire is {"task": "text-to-image", "txt2img_payload": {...}}.'
    )


def resolve(
    asked: PlainRequest,
    request: JobRequest,
    models: Catalogue,
    *,
    settings: Mapping[str, Any],
    locked: Mapping[str, str],
    draw: Draw,
) -> Resolution:
    """The parts of a plain request as those of a job. Raises InvalidRequest and its kin."""
    found = resolve_plain(asked, models, settings=settings, locked=locked, draw=draw)
    return Resolution(
        payload=parse_payload(request.txt2img_payload),
        parts=found.parts,
        warnings=found.warnings,
        ignored=found.ignored,
        style_names=(),
        dispatch=tuple(range(len(found.parts))),
    )


def _payload(asked: PlainRequest) -> dict[str, Any]:
    """What people see of a plain request among their jobs: the peer's fields, the prompts one below the
    other.
    """
    said = {
        "prompt": "\n".join(asked.prompts),
        "negative_prompt": "\n".join(dict.fromkeys(asked.negatives)),
        "width": asked.width,
        "height": asked.height,
        "steps": asked.num_inference_steps,
        "cfg_scale": asked.guidance_scale,
        "sampler_name": asked.sampler_name,
        "batch_size": asked.num_images_per_prompt,
        "seed": asked.seed,
    }
    return {name: value for name, value in said.items() if value is not None}
