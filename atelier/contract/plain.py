"""The plain text-to-image request: the body that the guides for Hugging Face's containers teach.

`{"prompt": text or list, "height", "width", "num_inference_steps", "guidance_scale", "num_images_per_prompt",
"negative_prompt"}`, bare or as `{"inputs": ..., "parameters": {...}}`, is answered with `{"generated_images":
[base64 JPEG, ...]}`. That answer has no place for remarks, so that a body is taken whole or refused in words:
a mistyped member would otherwise be lost in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, LimitExceeded

Output = Literal["base64", "s3"]
"""Where finished pictures go: into the answer, or into the worker's store, which the answer names."""

DEFAULT_STEPS, DEFAULT_GUIDANCE, DEFAULT_SAMPLER = 50, 7.5, "Euler"
JPEG_QUALITY = 95
MOST_PICTURES = 100
"""Of one request, all prompts together."""
MOST_PIXELS = 64 * 1024 * 1024
"""Of all pictures of one request: they are in memory together when the answer is written."""
_SIDE_STEP = 8
_WRAPPING = ("inputs", "parameters")


def _number(value: object) -> int | float:
    """A number JSON may hold: 1e999 is infinite to Python, and its whole numbers have no end."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= limits.MAX_SEED:
        raise PydanticCustomError("number", "it must be a number of usual size")
    return value


def _whole(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise PydanticCustomError("whole", "it must be a whole number")
    return int(number)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("text", "it must be text")
    return value


def _texts(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise PydanticCustomError("texts", "it must be text or a list of texts")
    return tuple(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[str | tuple[str, ...], BeforeValidator(_texts)]


class PlainRequest(BaseModel):
    """A plain request, checked in itself. Sizes in pixels; None takes the checkpoint's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Texts
    negative_prompt: Texts | None = None
    height: Whole | None = None
    width: Whole | None = None
    num_inference_steps: Whole = DEFAULT_STEPS
    guidance_scale: Number = DEFAULT_GUIDANCE
    num_images_per_prompt: Whole = 1
    seed: Whole | None = None
    """Of the first picture; each following one has the next. None or -1 draws it."""
    sampler_name: Text = DEFAULT_SAMPLER
    model: Text | None = None
    output: Output | None = None
    """None leaves it to the deployment."""
    username: Text | None = None
    """Accepted because published bodies have it; it says nothing about who calls."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts in the order of the answer."""
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt

    @property
    def guided(self) -> bool:
        """Whether guidance is on: a scale of at most 1 turns it off."""
        return self.guidance_scale > 1

    @property
    def negatives(self) -> tuple[str, ...]:
        """A negative prompt for each prompt; empty ones without guidance, which is what makes use of them."""
        if self.negative_prompt is None or not self.guided:
            return ("",) * len(self.prompts)
        return (self.negative_prompt,) if isinstance(self.negative_prompt, str) else self.negative_prompt

    @property
    def pictures(self) -> int:
        """How many pictures the answer has."""
        return len(self.prompts) * self.num_images_per_prompt


def is_plain(body: Mapping[str, Any]) -> bool:
    """Whether `body` is a plain request, by the members that only it has."""
    return "prompt" in body or "inputs" in body


def parse(body: Mapping[str, Any]) -> PlainRequest:
    """The request of a body, bare or wrapped. Raises InvalidRequest naming the first bad member, with all of
    them in `detail`, and LimitExceeded.
    """
    given = {name: value for name, value in _unwrapped(body).items() if value is not None}
    unknown = [name for name in given if name not in PlainRequest.model_fields]
    if unknown:
        raise _unknown(unknown)
    try:
        request = PlainRequest.model_validate(given)
    except ValidationError as error:
        raise _faulty(error) from error
    _check_counts(request)
    _check_negatives(request)
    _check_sizes(request)
    return request


def check_area(request: PlainRequest, width: int, height: int) -> None:
    """Raises LimitExceeded where all pictures of `width` x `height` pixels are too much for one answer."""
    if request.pictures * width * height > MOST_PIXELS:
        raise LimitExceeded(
            f"{request.pictures} pictures of {width}x{height} are more than one answer may hold: "
            f"at this size ask for at most {MOST_PIXELS // (width * height)} at once.",
            detail={"field": "num_images_per_prompt", "limit": MOST_PIXELS // (width * height)},
        )


def _unwrapped(body: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a body: those beside `inputs` and those of `parameters` count as its own."""
    rest = {name: value for name, value in body.items() if name not in _WRAPPING}
    inputs, parameters = body.get("inputs"), body.get("parameters")
    if "parameters" in body and "inputs" not in body:
        raise InvalidRequest(
            "`parameters` goes with `inputs`; in a bare body its members stand by themselves."
        )
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidRequest("`parameters` must be an object with the members of a plain request.")
    if "inputs" not in body:
        return rest
    said = dict(inputs) if isinstance(inputs, Mapping) else {"prompt": inputs}
    for more in (parameters or {}, rest):
        twice = sorted(said.keys() & more.keys())
        if twice:
            raise InvalidRequest(f"`{twice[0]}` is given twice. Give it once.", detail={"fields": twice})
        said |= more
    return said


def _unknown(names: list[str]) -> InvalidRequest:
    known = list(PlainRequest.model_fields)
    told = []
    for name in names[:5]:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        told.append(f"{name[:80]!r} (did you mean {near[0]!r}?)" if near else repr(name[:80]))
    return InvalidRequest(
        f"A plain request knows no {', '.join(told)}. It knows {', '.join(known)}.",
        detail={"fields": [name[:80] for name in names[:20]]},
    )


def _faulty(error: ValidationError) -> InvalidRequest:
    faults = [
        {"field": ".".join(str(place) for place in each["loc"][:1]), "reason": each["msg"]}
        for each in error.errors()
    ]
    first = faults[0]
    if first["field"] == "prompt" and error.errors()[0]["type"] == "missing":
        return InvalidRequest(
            "A plain request needs a `prompt`: text or a list of texts.", detail={"fields": faults}
        )
    return InvalidRequest(
        f"The field {first['field']!r} cannot be used: {first['reason']}.", detail={"fields": faults}
    )


def _check_counts(request: PlainRequest) -> None:
    if not request.prompts:
        raise InvalidRequest("`prompt` is an empty list: there is nothing to draw.")
    if request.num_images_per_prompt < 1:
        raise LimitExceeded(
            "num_images_per_prompt must be at least 1.", detail={"field": "num_images_per_prompt"}
        )
    if request.pictures > MOST_PICTURES:
        raise LimitExceeded(
            f"{len(request.prompts)} prompts with {request.num_images_per_prompt} pictures each are "
            f"{request.pictures}; one request makes at most {MOST_PICTURES}. Send several.",
            detail={"field": "num_images_per_prompt", "limit": MOST_PICTURES},
        )


def _check_negatives(request: PlainRequest) -> None:
    """The published rule: of the prompt's type and, as a list, of its length; heeded with guidance only."""
    negative = request.negative_prompt
    if negative is None or not request.guided:
        return
    if isinstance(negative, str) != isinstance(request.prompt, str):
        kinds = ["text" if isinstance(each, str) else "a list" for each in (negative, request.prompt)]
        raise InvalidRequest(
            f"`negative_prompt` is {kinds[0]} and `prompt` is {kinds[1]}: both must be text, or both lists.",
            detail={"field": "negative_prompt"},
        )
    if len(request.negatives) != len(request.prompts):
        raise InvalidRequest(
            f"`negative_prompt` has {len(negative)} entries for {len(request.prompts)} prompts: "
            "give one for each, which may be empty.",
            detail={"field": "negative_prompt"},
        )


def _check_sizes(request: PlainRequest) -> None:
    for field in ("height", "width"):
        side = getattr(request, field)
        if side is None:
            continue
        if not limits.MIN_SIDE <= side <= limits.MAX_SIDE:
            raise LimitExceeded(
                f"{field} is {str(side)[:20]}; it must be from {limits.MIN_SIDE} to {limits.MAX_SIDE}.",
                detail={"field": field, "low": limits.MIN_SIDE, "high": limits.MAX_SIDE},
            )
        if side % _SIDE_STEP:
            below = side // _SIDE_STEP * _SIDE_STEP
            raise InvalidRequest(
                f"{field} is {side}; it must be divisible by {_SIDE_STEP}, such as {below} or "
                f"{below + _SIDE_STEP}.",
                detail={"field": field},
            )
