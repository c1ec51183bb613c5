"""What NovelAI writes into its PNGs, as an infotext of the peer."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from atelier.contract.errors import UnknownName
from atelier.vocabulary import find_sampler

_MARK = re.compile(r"[{}\[\]]|[^{}\[\]]+")
_STEP = {"{": 1, "}": -1, "[": -1, "]": 1}
_WEIGHT = 1.05
"""Of one curly bracket; a square one divides by it."""
_DEEPEST = 60
_EDGE = " \t\r\n,"
_SAMPLERS = {
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpm_adaptive": "DPM adaptive",
    "ddim_v3": "DDIM",
    "nai_smea": "Euler a",
    "nai_smea_dyn": "Euler a",
}
"""Names of NovelAI's that are no alias in the peer."""
_LARGEST = 2**64
"""Of a number that means anything."""
_FIXED = "Clip skip: 2, ENSD: 31337"
"""How all of its pictures were made."""


def translate(description: str, comment: str, size: tuple[int, int]) -> str | None:
    """The infotext of a picture of `size` (width, height) from the PNG's texts "Description" and "Comment"
    (JSON); None where they are not NovelAI's. Weights in {curly} and [square] brackets become the peer's.
    """
    try:
        told = json.loads(comment)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    prompt, negative = description or str(told.get("prompt", "")), str(told.get("uc") or "")
    entries = {
        "Steps": _number(told.get("steps")),
        "Sampler": _sampler(told.get("sampler")),
        "CFG scale": _number(told.get("scale")),
        "Seed": _number(told.get("seed")),
        "Size": f"{size[0]}x{size[1]}",
    }
    line = ", ".join(f"{key}: {value}" for key, value in entries.items() if value is not None)
    lines = [
        weights(prompt),
        f"Negative prompt: {weights(negative)}" if negative else "",
        f"{line}, {_FIXED}",
    ]
    # JSON may escape half a character, which no text can hold
    return "\n".join(each for each in lines if each).encode("utf-8", "replace").decode()


def weights(text: str) -> str:
    """`text` with NovelAI's brackets as the peer's weights: `{x}` is (x:1.05), `[x]` is (x:0.952). Brackets
    may nest and stay open; round ones mean nothing there, so they are escaped.
    """
    out: list[str] = []
    depth = 0
    for piece in _MARK.findall(text):
        if piece in _STEP:
            depth = max(-_DEEPEST, min(_DEEPEST, depth + _STEP[piece]))
        else:
            out.append(_weighted(re.sub(r"[\\()]", r"\\\g<0>", piece), depth))
    return "".join(out)


def _weighted(text: str, depth: int) -> str:
    """`text` with a weight; space and commas at its edges stay outside."""
    inner = text.strip(_EDGE)
    if depth == 0 or not inner:
        return text
    start = len(text) - len(text.lstrip(_EDGE))
    weight = f"{_WEIGHT**depth:.3f}".rstrip("0").rstrip(".")
    return f"{text[:start]}({inner}:{weight}){text[start + len(inner) :]}"


def _sampler(name: Any) -> str:
    """The peer's name; "Euler a" for what it does not know, as there."""
    known = _SAMPLERS.get(str(name), str(name))
    try:
        return find_sampler(known)[0].name
    except UnknownName:
        return "Euler a"


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _LARGEST and not math.isnan(value) else None
