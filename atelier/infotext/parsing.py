"""An infotext as values: the peer's reading of it, with its defaults and what it does for texts of older
versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from atelier.contract.limits import MAX_PROMPT_CHARACTERS
from atelier.infotext import grammar, networks, versions
from atelier.infotext.networks import Names
from atelier.prompt import attention
from atelier.prompt import styles as prompt_styles

Styles = Mapping[str, tuple[str, str]]
"""Style name -> (prompt, negative prompt)."""

_NONE: Mapping[str, Any] = MappingProxyType({})
_SIZE = re.compile(r"(\d+)x(\d+)\Z")
_NEGATIVE = "Negative prompt:"
_LEAST_ENTRIES = 3
"""A last line with fewer is a line of the prompt."""
_MOST_BRACKETS = 500
_LARGEST_SIDE = 10**6
"""Pixels; beyond is no size but somebody's joke."""

_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "Clip skip": "1",
        "Hires resize-1": 0,
        "Hires resize-2": 0,
        "Hires sampler": "Use same sampler",
        "Hires schedule type": "Use same scheduler",
        "Hires checkpoint": "Use same checkpoint",
        "Hires prompt": "",
        "Hires negative prompt": "",
        "Mask mode": "Inpaint masked",
        "Masked content": "original",
        "Inpaint area": "Whole picture",
        "Masked area padding": 32,
        "RNG": "GPU",
        "Schedule type": "Automatic",
        "Schedule max sigma": 0,
        "Schedule min sigma": 0,
        "Schedule rho": 0,
        "VAE Encoder": "Full",
        "VAE Decoder": "Full",
        "FP8 weight": "Disable",
        "Refiner switch by sampling steps": False,
    }
)


def parse(
    text: str,
    *,
    styles: Styles = _NONE,
    loras: Names = networks.NOBODY,
    embeddings: Names = networks.NOBODY,
    hypernetworks: Names = networks.NOBODY,
) -> dict[str, object]:
    """What `text` says, with the peer's defaults filled in. Never raises, and takes time in proportion to the
    text; a text without a parameters line is a prompt.

    Values are strings; `Size: 64x48` becomes Size-1 and Size-2. `styles` found in the prompts are taken out
    and named in "Styles array". `loras`, `embeddings` and `hypernetworks` (hash -> names here) rename what
    the prompts say of files that "Lora hashes" and its kin know, and that are called something else here.
    """
    *body, last = text.strip().split("\n")
    pairs = grammar.entries(last)
    if len(pairs) < _LEAST_ENTRIES:
        body, pairs = [*body, last], []
    found = _values(pairs)
    prompt, negative = _split_prompts(body)
    found["Prompt"], found["Negative prompt"] = prompt, negative
    if styles:
        _take_styles_out(found, styles)
    _restore_hypernetwork(found)
    here = {networks.LORAS: loras, networks.EMBEDDINGS: embeddings, networks.HYPERNETWORKS: hypernetworks}
    networks.rename(found, here)
    for key, value in _DEFAULTS.items():
        found.setdefault(key, value)
    _from_first_pass(found)
    if "Emphasis" not in found and any(
        _is_weighted(str(found[key])) for key in ("Prompt", "Negative prompt")
    ):
        found["Emphasis"] = "Original"
    if found["FP8 weight"] != "Disable":
        found.setdefault("Cache FP16 weight for LoRA", False)
    return found | versions.compatibility(found)


def _values(pairs: list[tuple[str, str]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, raw in pairs:
        if not raw:
            continue
        value = grammar.unquote(raw)
        size = _SIZE.match(value)
        if size:
            found[f"{key}-1"], found[f"{key}-2"] = size[1], size[2]
        else:
            found[key] = value
    return found


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in (each.strip() for each in lines):
        if line.startswith(_NEGATIVE):
            target = negative
            line = line.removeprefix(_NEGATIVE).strip()
        if target or line:  # empty lines in front are none
            target.append(line)
    return "\n".join(prompt), "\n".join(negative)


def _take_styles_out(found: dict[str, object], styles: Styles) -> None:
    """The prompts without the styles they were written with, if the second pass's had the same. Before
    1.8.0-139 styles were never put into the second pass's.
    """
    prompt, negative = str(found["Prompt"]), str(found["Negative prompt"])
    names, own, own_negative = prompt_styles.extract(prompt, negative, styles)
    if ("Hires prompt" in found or "Hires negative prompt" in found) and versions.styles_hires_prompts(found):
        second = str(found.get("Hires prompt", prompt)), str(found.get("Hires negative prompt", negative))
        hires_names, hires, hires_negative = prompt_styles.extract(*second, styles)
        if list(hires_names) != list(names):
            return
        found["Hires prompt"] = "" if hires == own else hires
        found["Hires negative prompt"] = "" if hires_negative == own_negative else hires_negative
    found["Prompt"], found["Negative prompt"] = own, own_negative
    if names:
        found["Styles array"] = list(names)


def _restore_hypernetwork(found: dict[str, object]) -> None:
    """Texts before 1.3 name a hypernetwork beside the prompt; since then it is a tag in it."""
    name = found.get("Hypernet")
    if name is not None:
        if "Hypernet hash" in found:
            found.setdefault(networks.HYPERNETWORKS, f"{name}: {found['Hypernet hash']}")
        found["Prompt"] = f"{found['Prompt']}<hypernet:{name}:{found.get('Hypernet strength', '1.0')}>"


def _is_weighted(prompt: str) -> bool:
    """Whether a word has a weight of its own. Of a text that nobody wrote by hand any bracket counts."""
    brackets = prompt.count("(") + prompt.count("[")
    if not brackets:
        return False
    if brackets > _MOST_BRACKETS or len(prompt) > MAX_PROMPT_CHARACTERS:
        return True
    return any(weight != 1.0 and text != attention.BREAK for text, weight in attention.parse(prompt))


def _from_first_pass(found: dict[str, object]) -> None:
    """Old texts name the first pass; the size they give is the hires one. 0x0 meant 512 x 512 worth of pixels
    in the same shape.
    """
    first = _size(found, "First pass size")
    if first is None:
        return
    width, height = _size(found, "Size") or (512, 512)
    if 0 in first:
        scale = (512 * 512 / max(1, width * height)) ** 0.5
        first = (int(-(-width * scale // 64) * 64), int(-(-height * scale // 64) * 64))
    found["Size-1"], found["Size-2"] = first
    found["Hires resize-1"], found["Hires resize-2"] = width, height


def _size(found: Mapping[str, object], key: str) -> tuple[int, int] | None:
    sides = [str(found.get(f"{key}-{number}", "")) for number in (1, 2)]
    if any(not side.isdecimal() or len(side) > len(str(_LARGEST_SIDE)) for side in sides):
        return None
    return int(sides[0]), int(sides[1])
