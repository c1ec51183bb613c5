"""Numbers of a request within their limits: sizes, steps, seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from atelier.contract import limits
from atelier.contract.errors import LimitExceeded
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import ModelRef
from atelier.seeds import Draw


def within(field: str, value: float | None, default: float, low: float, high: float) -> float:
    """`value`, or `default` for None. Raises LimitExceeded outside of low..high."""
    number = default if value is None else value
    if not low <= number <= high:
        raise LimitExceeded(
            f"{field} is {_shown(number)}; it must be from {low:g} to {high:g}.",
            detail={"field": field, "low": low, "high": high},
        )
    return number


def _shown(number: float) -> str:
    try:
        return f"{number:g}"
    except OverflowError:  # a whole number beyond every float
        return f"a number of {len(str(abs(int(number))))} digits"


def old_first_pass(width: int, height: int) -> tuple[int, int]:
    """The size of the first pass that versions before hires fix chose: 512 x 512 pixels' worth of the same
    shape, in steps of 64.
    """
    scale = math.sqrt(512 * 512 / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def names_final_size(request: Txt2ImgPayload, effective: Mapping[str, Any]) -> bool:
    """Whether width and height are those of the second pass: with the old fields `firstphase_*`, or the
    option `use_old_hires_fix_width_height`.
    """
    if not request.enable_hr:
        return False
    old = bool(effective.get("use_old_hires_fix_width_height"))
    return old or bool(request.firstphase_width or request.firstphase_height)


def first_size(
    request: Txt2ImgPayload, checkpoint: ModelRef, effective: Mapping[str, Any]
) -> tuple[int, int]:
    """(width, height) in pixels of the first pass."""
    width, height = request.width, request.height
    if names_final_size(request, effective):
        final = max(width or 512, 1), max(height or 512, 1)
        wide, high = request.firstphase_width or 0, request.firstphase_height or 0
        width, height = (wide, high) if wide > 0 and high > 0 else old_first_pass(*final)
    most = limits.of_family(checkpoint.family).side
    return (
        int(within("width", width, 512, limits.MIN_SIDE, most)),
        int(within("height", height, 512, limits.MIN_SIDE, most)),
    )


def size_warnings(size: tuple[int, int], checkpoint: ModelRef) -> tuple[str, ...]:
    """What is to be said of a first pass (width, height) of more than twice the area the checkpoint was
    trained at: its subject tends to come twice.
    """
    native = limits.of_family(checkpoint.family).native
    wide, high = checkpoint.resolution or (native, native)
    if size[0] * size[1] <= 2 * wide * high:
        return ()
    return (
        f"{checkpoint.filename} was trained at {wide}x{high}: a first pass of {size[0]}x{size[1]} often "
        "repeats its subject. Make it smaller and enlarge it with hires fix.",
    )


def common_numbers(
    request: Txt2ImgPayload, checkpoint: ModelRef, effective: Mapping[str, Any]
) -> dict[str, Any]:
    """Steps, CFG scale and sizes as fields of a part."""
    within("subseed_strength", request.subseed_strength, 0, 0, 1)
    resize = (request.seed_resize_from_w or 0, request.seed_resize_from_h or 0)
    for side in resize:
        within("seed_resize_from", side, 0, -1, limits.MAX_SIDE)
    width, height = first_size(request, checkpoint, effective)
    return {
        "steps": int(within("steps", request.steps, 50, 1, limits.MAX_STEPS)),
        "cfg_scale": float(within("cfg_scale", request.cfg_scale, 7.0, 0, limits.MAX_CFG_SCALE)),
        "width": width,
        "height": height,
        "seed_resize_from": resize if min(resize) > 0 else (0, 0),
    }


def seeds(request: Txt2ImgPayload, draw: Draw) -> list[dict[str, tuple[int, ...]]]:
    """Seeds and subseeds of each part: seed + i for picture i, or subseed + i on one seed with variation.

    Without variation the subseeds are those of 0: what no picture depends on has no place in a recipe.
    """
    batch = int(within("batch_size", request.batch_size, 1, 1, limits.MAX_BATCH_SIZE))
    count = int(within("n_iter", request.n_iter, 1, 1, limits.MAX_BATCH_COUNT))
    seed = draw() if request.seed is None or request.seed == -1 else request.seed
    subseed = 0
    if request.subseed_strength:
        subseed = draw() if request.subseed is None or request.subseed == -1 else request.subseed
    for field, value in (("seed", seed), ("subseed", subseed)):
        within(field, value, 0, 0, limits.MAX_SEED - limits.MAX_BATCH_COUNT * limits.MAX_BATCH_SIZE)
    step = 0 if request.subseed_strength else 1
    numbers = [range(part * batch, (part + 1) * batch) for part in range(count)]
    return [
        {"seeds": tuple(seed + i * step for i in part), "subseeds": tuple(subseed + i for i in part)}
        for part in numbers
    ]
