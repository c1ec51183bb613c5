"""Selectable scripts: one request becomes cells, each a request of its own that any worker may carry out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier.contract.errors import UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue
from atelier.scripts import fromfile, matrix, xyz
from atelier.scripts.arguments import PromptMatrix, PromptsFromFile, XyzPlot, read
from atelier.scripts.arrangement import GRID_OPTIONS, plain
from atelier.scripts.expansion import Cell, Expansion
from atelier.seeds import Draw, draw_seed
from atelier.vocabulary import SELECTABLE_SCRIPTS

__all__ = ["GRID_OPTIONS", "Cell", "Expansion", "expand", "plain"]


def expand(
    request: Txt2ImgPayload,
    catalogue: Catalogue,
    draw: Draw = draw_seed,
    effective: Mapping[str, Any] | None = None,
) -> Expansion | None:
    """The cells and grids of the script a request names; None where it names none.

    `effective`: the caller's options with the request's override_settings over them. Raises UnknownName for a
    script that is not there, InvalidRequest and its kin for arguments that cannot be used.
    """
    name = (request.script_name or "").strip().lower()
    if name in ("", "none"):
        return None
    given, options = request.script_args, effective or {}
    if name == XyzPlot.script:
        return xyz.expand(request, read(XyzPlot, given), catalogue, draw, options)
    if name == PromptMatrix.script:
        return matrix.expand(request, read(PromptMatrix, given), draw, options)
    if name == PromptsFromFile.script:
        return fromfile.expand(request, read(PromptsFromFile, given), draw, options)
    raise UnknownName.of("script", request.script_name or "", SELECTABLE_SCRIPTS)
