"""Prompts from a file or a text box: every line a prompt, or a line of options as on a command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from atelier.contract.errors import AtelierError, InvalidRequest, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import Arrangement
from atelier.scripts.arguments import PromptsFromFile
from atelier.scripts.arrangement import style_of
from atelier.scripts.expansion import Cell, Expansion, cell_of, fixed, pictures_of, within_reason
from atelier.seeds import Draw
from atelier.vocabulary import SAMPLERS

_PROMPTS = ("prompt", "negative_prompt")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false is meant")
    return text.lower() == "true"


def _sampler(text: str) -> str:
    index = int(text)
    if not 0 <= index < len(SAMPLERS):
        raise ValueError(f"samplers are numbered 0 to {len(SAMPLERS) - 1}")
    return SAMPLERS[index].name


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "sd_model": str,
    "outpath_samples": str,
    "outpath_grids": str,
    "prompt_for_display": str,
    "prompt": str,
    "negative_prompt": str,
    "styles": _names,
    "seed": int,
    "subseed_strength": float,
    "subseed": int,
    "seed_resize_from_h": int,
    "seed_resize_from_w": int,
    "sampler_index": _sampler,
    "sampler_name": str,
    "batch_size": int,
    "n_iter": int,
    "steps": int,
    "cfg_scale": float,
    "width": int,
    "height": int,
    "restore_faces": _truth,
    "tiling": _truth,
    "do_not_save_samples": _truth,
    "do_not_save_grid": _truth,
}
"""The peer's options of a line, and how each is read."""

_WITHOUT_EFFECT = {
    "outpath_samples": "pictures are kept with their job",
    "outpath_grids": "pictures are kept with their job",
    "prompt_for_display": "the prompt itself is shown",
    "do_not_save_samples": "every picture is kept with its job",
    "do_not_save_grid": "this script makes no grid",
}


def expand(
    request: Txt2ImgPayload, script: PromptsFromFile, draw: Draw, effective: Mapping[str, Any]
) -> Expansion:
    """One cell for each line that is not empty. Raises InvalidRequest naming the line that cannot be read."""
    lines = [(i, line.strip()) for i, line in enumerate(script.prompts.strip().splitlines(), 1)]
    written = [(i, options_of(line, i)) for i, line in lines if line]
    if not written:
        raise InvalidRequest("The list of prompts is empty. Write one prompt on each line.")
    one_seed = script.iterate_seed or script.same_seed
    seed = fixed(request.seed, draw) if one_seed else request.seed
    shift, cells, warnings = 0, [], []
    for number, options in written:
        changes = _changes(request, script, options)
        if "seed" not in options:
            changes["seed"] = fixed(seed, draw) + shift
        changes["seed"] = fixed(changes["seed"], draw)
        cells.append(Cell(cell_of(request, changes), f"line {number}"))
        if script.iterate_seed:
            shift += pictures_of(request)
        warnings += [
            f"Line {number}: --{name} had no effect: {why}."
            for name, why in _WITHOUT_EFFECT.items()
            if name in options
        ]
    within_reason(sum(cell.pictures for cell in cells), f"The list has {len(cells)} prompts")
    style = style_of(request, effective)
    return Expansion(tuple(cells), Arrangement(style=style), warnings=tuple(warnings))


def options_of(line: str, number: int) -> dict[str, Any]:
    """The options a line sets. A line without `--` is a prompt. Raises InvalidRequest naming the line."""
    if "--" not in line:
        return {"prompt": line}
    try:
        return _read(shlex.split(line))
    except AtelierError as error:
        raise type(error)(
            f"Line {number}: {error.message}", detail=error.detail | {"line": number}
        ) from error
    except ValueError as error:
        raise InvalidRequest(
            f"Line {number} cannot be read: {str(error)[:200]}.", detail={"line": number}
        ) from error


def _read(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word, place = words[place], place + 1
        if not word.startswith("--"):
            raise ValueError(f"{word[:80]!r} belongs to no option; each begins with --, as in --prompt")
        name = word[2:]
        if name not in OPTIONS:
            raise UnknownName.of("option of a line", name, OPTIONS)
        if place == len(words):
            raise ValueError(f"--{name} has no value")
        value, place = words[place], place + 1
        while name in _PROMPTS and place < len(words) and not words[place].startswith("--"):
            value, place = f"{value} {words[place]}", place + 1
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    try:
        return OPTIONS[name](text)
    except ValueError as error:
        raise ValueError(f"--{name} {text[:80]!r} cannot be used ({str(error)[:120]})") from error


def _changes(request: Txt2ImgPayload, script: PromptsFromFile, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a line's cell: its prompts stand before or after the request's own."""
    changes = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    model = changes.pop("sd_model", None)
    if model is not None:
        changes["override_settings"] = {**(request.override_settings or {}), "sd_model_checkpoint": model}
    index = changes.pop("sampler_index", None)
    if index is not None:
        changes.setdefault("sampler_name", index)
    for name in _PROMPTS:
        own, given = changes.get(name), getattr(request, name)
        if own and given:
            changes[name] = f"{own} {given}" if script.insert_at == "start" else f"{given} {own}"
    return changes
