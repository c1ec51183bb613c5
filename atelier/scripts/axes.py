"""The axes of an X/Y/Z plot by the peer's labels: what their values are and what these change in a cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelKind
from atelier.scripts import values
from atelier.scripts.expansion import within_reason
from atelier.vocabulary import LATENT_UPSCALERS, PIXEL_UPSCALERS, SAMPLERS, SCHEDULERS

Apply = Callable[[Txt2ImgPayload, Any, Sequence[Any]], dict[str, Any]]
"""(cell so far, value, all values of the axis) -> changed fields of the cell."""
Choices = Callable[[Catalogue], list[str]]


@dataclass(frozen=True)
class Axis:
    """An axis. `read` turns written values into typed ones, `apply` says what one changes, `show` how it is
    written beside the grid. `cost`: how dear it is to change from one cell to the next.

    `choices` are what a menu offers; `refused` is why an axis of the peer cannot be used here.
    """

    label: str
    read: Callable[[Sequence[str]], list[Any]]
    apply: Apply
    show: Callable[[Axis, Any], str]
    choices: Choices | None = None
    cost: float = 0.0
    refused: str = ""

    @property
    def seeds(self) -> bool:
        """Whether its values are seeds, of which -1 is drawn."""
        return self.label in ("Seed", "Var. seed")


def _texts(written: Sequence[str]) -> list[Any]:
    return list(written)


def _orders(written: Sequence[str]) -> list[Any]:
    total = 1
    for i in range(len(written)):
        within_reason(total := total * (i + 1), f"The orders of {len(written)} words are too many")
    return list(itertools.permutations(written))


def _truths(written: Sequence[str]) -> list[Any]:
    for each in written:
        if each.lower() not in ("true", "false"):
            raise InvalidRequest(f"{each[:80]!r} is neither True nor False.")
    return [each.lower() == "true" for each in written]


def _sizes(written: Sequence[str]) -> list[Any]:
    for each in written:
        sides = [side.strip() for side in each.lower().split("x")]
        if len(sides) != 2 or not all(side.isascii() and side.isdigit() and len(side) < 6 for side in sides):
            raise InvalidRequest(f"{each[:80]!r} is no size. Write width and height as 512x768.")
    return list(written)


def _field(name: str) -> Apply:
    return lambda _cell, value, _all: {name: value}


def _option(name: str) -> Apply:
    return lambda cell, value, _all: {"override_settings": {**(cell.override_settings or {}), name: value}}


def _nothing(_cell: Txt2ImgPayload, _value: Any, _all: Sequence[Any]) -> dict[str, Any]:
    return {}


def _search_replace(cell: Txt2ImgPayload, value: str, every: Sequence[str]) -> dict[str, Any]:
    prompt, negative, searched = cell.prompt or "", cell.negative_prompt or "", every[0]
    if searched not in prompt and searched not in negative:
        raise InvalidRequest(
            f"Prompt S/R did not find {searched[:80]!r} in the prompt or the negative prompt. "
            "Its first value is what it looks for.",
            detail={"searched": searched[:200]},
        )
    if not searched:
        raise InvalidRequest("Prompt S/R has an empty first value; it is what the axis looks for.")
    return {
        "prompt": prompt.replace(searched, value),
        "negative_prompt": negative.replace(searched, value),
    }


def _reorder(cell: Txt2ImgPayload, order: Sequence[str], _all: Sequence[Any]) -> dict[str, Any]:
    """The words where they stand in the prompt, each place taken by the word that `order` has for it."""
    prompt = cell.prompt or ""
    for word in order:
        if not word or word not in prompt:
            raise InvalidRequest(f"Prompt order did not find {word[:80]!r} in the prompt.")
    done, rest = "", prompt
    places = sorted((prompt.find(word), word) for word in order)
    for (_, word), instead in zip(places, order, strict=True):
        before, found, after = rest.partition(word)
        if not found:
            raise InvalidRequest(f"Prompt order cannot tell where {word[:80]!r} begins: its words overlap.")
        done, rest = done + before + instead, after
    return {"prompt": done + rest}


def _size(_cell: Txt2ImgPayload, value: str, _all: Sequence[Any]) -> dict[str, Any]:
    width, height = (int(side) for side in value.lower().split("x"))
    return {"width": width, "height": height}


def _styles(cell: Txt2ImgPayload, value: str, _all: Sequence[Any]) -> dict[str, Any]:
    return {"styles": [*(cell.styles or ()), *value.split(",")]}


def _uni_pc_order(cell: Txt2ImgPayload, value: int, every: Sequence[Any]) -> dict[str, Any]:
    """An order beyond the steps has no points to stand on."""
    steps = 50 if cell.steps is None else cell.steps
    return _option("uni_pc_order")(cell, min(value, max(1, steps - 1)), every)


def _refiner(_cell: Txt2ImgPayload, value: str, _all: Sequence[Any]) -> dict[str, Any]:
    return {"refiner_checkpoint": None if value == "None" else value}


def _labelled(axis: Axis, value: Any) -> str:
    return f"{axis.label}: {_bare(axis, value)}"


def _bare(_axis: Axis, value: Any) -> str:
    return str(round(value, 8) if isinstance(value, float) else value)


def _filename(_axis: Axis, value: Any) -> str:
    return str(value).replace("\\", "/").rsplit("/", 1)[-1]


def _list(_axis: Axis, value: Any) -> str:
    return ", ".join(value)


def _blank(_axis: Axis, _value: Any) -> str:
    return ""


def _checkpoints(catalogue: Catalogue) -> list[str]:
    return sorted((each.title for each in catalogue.of_kind(ModelKind.CHECKPOINT)), key=str.lower)


def _vaes(catalogue: Catalogue) -> list[str]:
    return ["Automatic", "None", *(each.filename for each in catalogue.of_kind(ModelKind.VAE))]


def _samplers(_catalogue: Catalogue) -> list[str]:
    return [each.name for each in SAMPLERS]


def _upscalers(_catalogue: Catalogue) -> list[str]:
    return [*LATENT_UPSCALERS, *PIXEL_UPSCALERS]


def _of(*names: str) -> Choices:
    return lambda _catalogue: list(names)


def _number(label: str, field: str, *, whole: bool = False) -> Axis:
    return Axis(label, values.integers if whole else values.floats, _field(field), _labelled)


def _number_option(label: str, option: str, *, whole: bool = False) -> Axis:
    return Axis(label, values.integers if whole else values.floats, _option(option), _labelled)


def _truth(label: str, option: str) -> Axis:
    return Axis(label, _truths, _option(option), _labelled, _of("True", "False"))


def _refused(label: str, why: str) -> Axis:
    return Axis(label, _texts, _nothing, _labelled, refused=why)


_NO_HYPERTILE = "hypertile is not served: it changes the picture to save time"
_NO_MERGING = "token merging is not served: it changes the picture to save time"
_NO_INPUT = "it takes effect with an input picture, which text to image has none of"
_HYPERTILE = (
    "Unet First pass Enabled", "Unet Second pass Enabled", "Unet Max Depth", "Unet Max Tile Size",
    "Unet Swap Size", "VAE Enabled", "VAE Max Depth", "VAE Max Tile Size", "VAE Swap Size",
)  # fmt: skip

AXES: tuple[Axis, ...] = (
    Axis("Nothing", _texts, _nothing, _blank),
    _number("Seed", "seed", whole=True),
    _number("Var. seed", "subseed", whole=True),
    _number("Var. strength", "subseed_strength"),
    _number("Steps", "steps", whole=True),
    _number("Hires steps", "hr_second_pass_steps", whole=True),
    _number("CFG Scale", "cfg_scale"),
    Axis("Prompt S/R", _texts, _search_replace, _bare),
    Axis("Prompt order", _orders, _reorder, _list),
    Axis("Sampler", _texts, _field("sampler_name"), _bare, _samplers),
    Axis("Hires sampler", _texts, _field("hr_sampler_name"), _labelled, _samplers),
    Axis("Checkpoint name", _texts, _option("sd_model_checkpoint"), _filename, _checkpoints, cost=1.0),
    _number("Negative Guidance minimum sigma", "s_min_uncond"),
    _number("Sigma Churn", "s_churn"),
    _number("Sigma min", "s_tmin"),
    _number("Sigma max", "s_tmax"),
    _number("Sigma noise", "s_noise"),
    Axis("Schedule type", _texts, _field("scheduler"), _labelled, _of(*(each.label for each in SCHEDULERS))),
    _number_option("Schedule min sigma", "sigma_min"),
    _number_option("Schedule max sigma", "sigma_max"),
    _number_option("Schedule rho", "rho"),
    _number_option("Beta schedule alpha", "beta_dist_alpha"),
    _number_option("Beta schedule beta", "beta_dist_beta"),
    _number("Eta", "eta"),
    _number_option("Clip skip", "CLIP_stop_at_last_layers", whole=True),
    _number("Denoising", "denoising_strength"),
    _refused("Initial noise multiplier", _NO_INPUT),
    _number_option("Extra noise", "img2img_extra_noise"),
    Axis("Hires upscaler", _texts, _field("hr_upscaler"), _labelled, _upscalers),
    Axis("VAE", _texts, _option("sd_vae"), _labelled, _vaes, cost=0.7),
    Axis("Styles", _texts, _styles, _labelled, lambda catalogue: list(catalogue.styles)),
    Axis("UniPC Order", values.integers, _uni_pc_order, _labelled, cost=0.5),
    _refused("Face restore", "face restoration is not served yet"),
    _refused("Token merging ratio", _NO_MERGING),
    _refused("Token merging ratio high-res", _NO_MERGING),
    _truth("Always discard next-to-last sigma", "always_discard_next_to_last_sigma"),
    _truth("SGM noise multiplier", "sgm_noise_multiplier"),
    Axis(
        "Refiner checkpoint",
        _texts,
        _refiner,
        _filename,
        lambda catalogue: ["None", *_checkpoints(catalogue)],
        cost=1.0,
    ),
    _number("Refiner switch at", "refiner_switch_at"),
    Axis("RNG source", _texts, _option("randn_source"), _labelled, _of("GPU", "CPU", "NV")),
    _refused("FP8 mode", "weights in FP8 are not served"),
    Axis("Size", _sizes, _size, _labelled),
    *(_refused(f"[Hypertile] {name}", _NO_HYPERTILE) for name in _HYPERTILE),
)  # fmt: skip
"""Every axis of the peer's text-to-image plot, in its order: its API names one by its place."""


def find_axis(named: str | int) -> Axis:
    """The axis of that label, whatever its case, or of that place in the list. Raises UnknownName, and
    InvalidRequest for an axis that is not served.
    """
    if isinstance(named, int):
        found = AXES[named] if 0 <= named < len(AXES) else None
    else:
        found = next((each for each in AXES if each.label.lower() == named.strip().lower()), None)
    if found is None:
        raise UnknownName.of("axis of an X/Y/Z plot", str(named), [each.label for each in AXES])
    if found.refused:
        raise InvalidRequest(
            f"The axis {found.label!r} cannot be used: {found.refused}.", detail={"axis": found.label}
        )
    return found
