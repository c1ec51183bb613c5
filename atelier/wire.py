"""The published wire body, `{"task", "model", "txt2img_payload"}`: its tasks, and which of its members mean
something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.parts import Task
from atelier.contract.plain import Output
from atelier.ignored import Ignored

USERNAME = "it is no identity: the credentials of a call say whose it is"
"""Why the member of that name has no effect."""
_HEEDED = ("task", "model", "output", "txt2img_payload")
_ELSEWHERE = {
    "image-to-image": "input pictures are not served yet",
    "extras-single-image": "upscaling of finished pictures is not served yet",
    "extras-batch-images": "upscaling of finished pictures is not served yet",
    "interrogate": "captions of pictures are not served yet",
    "detect": "preprocessors are not served yet",
    "merge": "merging is work for a CPU task, not for an endpoint",
    "reload-all-models": "a worker reads its catalogue anew at each call, so that there is nothing to reload",
    "set-models-bucket": "models come from the worker's own store alone; an administrator registers them",
}
"""Tasks of the published wire that are not served, and why."""


def task_of(body: Mapping[str, Any], asked: str = "This worker") -> Task:
    """The body's task; `asked` is who was asked, as the sentence names it. Raises UnknownName, and
    InvalidRequest for a task that is known and not served.
    """
    name, served = str(body.get("task")), [each.value for each in Task]
    if name in _ELSEWHERE:
        raise InvalidRequest(
            f"{asked} does not do the task {name!r}: {_ELSEWHERE[name]}. It does {', '.join(served)}.",
            detail={"task": name, "served": served},
        )
    try:
        return Task(name)
    except ValueError:
        raise UnknownName.of("task", name, served) from None


def payload_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of a text-to-image body. Raises InvalidRequest."""
    payload = body.get("txt2img_payload")
    if not isinstance(payload, dict):
        raise InvalidRequest("A text-to-image body needs `txt2img_payload`, an object.")
    return payload


def model_of(body: Mapping[str, Any]) -> str | None:
    """The checkpoint that a body names, None where it names none. Raises InvalidRequest."""
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("`model` must be the name of a checkpoint, as text.")
    return model or None


def output_of(body: Mapping[str, Any]) -> Output | None:
    """Where the pictures of a body go, None where it does not say. Raises UnknownName."""
    asked = body.get("output")
    if asked is None:
        return None
    names: tuple[Output, ...] = get_args(Output)
    for known in names:
        if asked == known:
            return known
    raise UnknownName.of("output", str(asked), names)


def unheeded(body: Mapping[str, Any], payload: Mapping[str, Any]) -> list[Ignored]:
    """Members of a text-to-image body and its payload that nothing reads."""
    found = [
        Ignored(name[:80], USERNAME if name == "username" else "this task reads no member of that name")
        for name in body
        if name not in _HEEDED
    ]
    return found + [
        Ignored(f"txt2img_payload.{name[:80]}", "the peer's request has no field of that name")
        for name in payload
        if name not in Txt2ImgPayload.model_fields
    ]
