"""The prompt matrix: `subject|a|b` becomes the subject with every choice of the parts after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import Annotation, Arrangement, GridPlan
from atelier.scripts.arguments import PromptMatrix
from atelier.scripts.arrangement import drawable, style_of
from atelier.scripts.expansion import Cell, Expansion, cell_of, fixed, within_reason
from atelier.seeds import Draw


def expand(
    request: Txt2ImgPayload, matrix: PromptMatrix, draw: Draw, effective: Mapping[str, Any]
) -> Expansion:
    """One cell for each subset of the variable parts: bit i of its number says whether part i is in."""
    field = "prompt" if matrix.prompt_type == "positive" else "negative_prompt"
    parts = (getattr(request, field) or "").split("|")
    variable = len(parts) - 1
    within_reason(2 ** min(variable, 64), f"A prompt matrix of {variable} variable parts is too large")
    seed = fixed(request.seed, draw)
    subseed = {"subseed": fixed(request.subseed, draw)} if request.subseed_strength else {}
    cells = []
    for number in range(2**variable):
        text = _combined(parts, number, matrix)
        one = {field: text, "seed": seed + (number if matrix.different_seeds else 0)}
        changes = one | subseed | {"batch_size": 1, "n_iter": 1}
        cells.append(Cell(cell_of(request, changes), f"the prompt {text[:60]!r}"))
    style = style_of(request, effective)
    drawable(cells, style, matrix.margin)
    arrangement = Arrangement(grids=(_plan(parts, matrix),), style=style, script=True)
    return Expansion(tuple(cells), arrangement)


def _combined(parts: list[str], number: int, matrix: PromptMatrix) -> str:
    chosen = [part.strip().strip(",") for i, part in enumerate(parts[1:]) if number >> i & 1]
    ordered = [*chosen, parts[0]] if matrix.put_at_start else [parts[0], *chosen]
    return (", " if matrix.joining == "comma" else " ").join(ordered)


def _plan(parts: list[str], matrix: PromptMatrix) -> GridPlan:
    """The first half of the variable parts spans the columns, the rest the rows; what a picture does without
    is struck through.
    """
    variable = [part.strip() for part in parts[1:]]
    across = math.ceil(len(variable) / 2)
    return GridPlan(
        tiles=tuple(range(2 ** len(variable))),
        rows=2 ** (len(variable) - across),
        legend=True,
        above=_subsets(variable[:across]),
        beside=_subsets(variable[across:]),
        margin=matrix.margin,
    )


def _subsets(parts: list[str]) -> tuple[tuple[Annotation, ...], ...]:
    return tuple(
        tuple(Annotation(text=part, active=bool(number >> i & 1)) for i, part in enumerate(parts))
        for number in range(2 ** len(parts))
    )
