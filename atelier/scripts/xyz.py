"""The X/Y/Z plot: a picture for every combination of the values of three axes, and the grids of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier.contract.errors import InvalidRequest
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import Annotation, Arrangement, GridPlan
from atelier.contract.models import Catalogue
from atelier.scripts import values
from atelier.scripts.arguments import XyzPlot
from atelier.scripts.arrangement import drawable, style_of
from atelier.scripts.axes import Axis, find_axis
from atelier.scripts.expansion import Cell, Expansion, cell_of, fixed, pictures_of, within_reason
from atelier.seeds import Draw

_OPTIONS_OF_TEXT = {
    "RNG": "randn_source",
    "Clip skip": "CLIP_stop_at_last_layers",
    "ENSD": "eta_noise_seed_delta",
}
"""Entries of the parameters that the peer takes from the options once a cell's overrides are gone again."""


@dataclass(frozen=True)
class _Line:
    """An axis with its values as they are used and as they were written."""

    letter: str
    axis: Axis
    values: tuple[Any, ...]
    written: str

    def texts(self) -> tuple[tuple[Annotation, ...], ...]:
        """What stands beside the grid: one line for each value."""
        return tuple((Annotation(text=self.axis.show(self.axis, value)),) for value in self.values)

    def extra(self, *, fixed_seeds: bool) -> dict[str, str]:
        """Its entries in the grid's infotext."""
        if self.axis.label == "Nothing":
            return {}
        said = {f"{self.letter} Type": self.axis.label, f"{self.letter} Values": self.written}
        if self.axis.seeds and fixed_seeds:
            said[f"Fixed {self.letter} Values"] = ", ".join(str(value) for value in self.values)
        return said


def expand(
    request: Txt2ImgPayload,
    plot: XyzPlot,
    catalogue: Catalogue,
    draw: Draw,
    effective: Mapping[str, Any],
) -> Expansion:
    """One cell for each combination, x fastest. Raises InvalidRequest and its kin."""
    x, y, z = (_line(plot, letter, catalogue, draw) for letter in "XYZ")
    request, warnings = _one_batch(request, effective)
    count = len(x.values) * len(y.values) * len(z.values)
    within_reason(
        count * pictures_of(request),
        f"The plot has {len(x.values)} x {len(y.values)} x {len(z.values)} cells",
    )
    request = _with_seeds(request, plot, (x, y, z), draw)
    places = list(itertools.product(range(len(z.values)), range(len(y.values)), range(len(x.values))))
    cells = tuple(_cell(request, plot, (x, y, z), (ix, iy, iz), draw) for iz, iy, ix in places)
    style = style_of(request, effective)
    drawable(cells, style, plot.margin)
    return Expansion(
        cells,
        _arranged(plot, (x, y, z), cells, request).model_copy(update={"style": style}),
        _dispatch((x, y, z), places),
        warnings,
    )


def _line(plot: XyzPlot, letter: str, catalogue: Catalogue, draw: Draw) -> _Line:
    low = letter.lower()
    axis = find_axis(getattr(plot, f"{low}_type"))
    if axis.label == "Nothing":
        return _Line(letter, axis, (0,), "")
    written, picked = getattr(plot, f"{low}_values"), getattr(plot, f"{low}_choices")
    if axis.choices is not None and picked and not plot.text_inputs:
        written = values.joined(picked)
    texts = values.split(written)
    if not any(texts):
        raise InvalidRequest(
            f"The {letter} axis ({axis.label}) has no values. Write them with commas between.",
            detail={"axis": axis.label, "choices": axis.choices(catalogue)[:50] if axis.choices else None},
        )
    read = axis.read(texts)
    if axis.seeds and not plot.no_fixed_seeds:
        read = [fixed(seed, draw) for seed in read]
    return _Line(letter, axis, tuple(read), written)


def _one_batch(
    request: Txt2ImgPayload, effective: Mapping[str, Any]
) -> tuple[Txt2ImgPayload, tuple[str, ...]]:
    """A cell shows its own grid of all its pictures, or its first one: then it makes no others."""
    if pictures_of(request) == 1 or (request.save_images and effective.get("return_grid", True)):
        return request, ()
    said = "batch_size and n_iter were taken as 1: a cell of an X/Y/Z plot shows more only with save_images."
    return request.model_copy(update={"batch_size": 1, "n_iter": 1}), (said,)


def _with_seeds(
    request: Txt2ImgPayload, plot: XyzPlot, lines: tuple[_Line, ...], draw: Draw
) -> Txt2ImgPayload:
    """Seeds left to chance are drawn once for all cells, unless they are to differ."""
    if plot.no_fixed_seeds:
        return request
    changes: dict[str, Any] = {}
    labels = {line.axis.label for line in lines}
    if "Seed" not in labels:
        changes["seed"] = fixed(request.seed, draw)
    if "Var. seed" not in labels and (request.subseed_strength or "Var. strength" in labels):
        changes["subseed"] = fixed(request.subseed, draw)
    return request.model_copy(update=changes)


def _cell(
    request: Txt2ImgPayload,
    plot: XyzPlot,
    lines: tuple[_Line, _Line, _Line],
    at: tuple[int, int, int],
    draw: Draw,
) -> Cell:
    cell, changed, said = request, {"seed"}, []
    for line, i in zip(lines, at, strict=True):
        value = line.values[i]
        changes = line.axis.apply(cell, value, line.values)
        cell, changed = cell.model_copy(update=changes), changed | set(changes)
        if line.axis.label != "Nothing":
            said.append(
                f"{line.axis.label}: {line.axis.show(line.axis, value).removeprefix(line.axis.label + ': ')}"
            )
    seed = fixed(cell.seed, draw) + _varied(plot, lines, at)
    changes = {name: getattr(cell, name) for name in changed} | {"seed": seed}
    if cell.subseed_strength:
        changes["subseed"] = fixed(cell.subseed, draw)
    return Cell(cell_of(request, changes), ", ".join(said) or "the plot")


def _varied(plot: XyzPlot, lines: tuple[_Line, _Line, _Line], at: tuple[int, int, int]) -> int:
    """How far a cell's seed is from the first one's: the axes that vary it count like digits."""
    shift, unit = 0, 1
    for vary, line, i in zip(
        (plot.vary_seeds_x, plot.vary_seeds_y, plot.vary_seeds_z), lines, at, strict=True
    ):
        if vary:
            shift, unit = shift + i * unit, unit * len(line.values)
    return shift


def _arranged(
    plot: XyzPlot, lines: tuple[_Line, _Line, _Line], cells: tuple[Cell, ...], request: Txt2ImgPayload
) -> Arrangement:
    x, y, z = lines
    each = pictures_of(request)
    tiles: list[int | GridPlan] = [
        i if each == 1 else GridPlan(tiles=tuple(range(i * each, (i + 1) * each))) for i in range(len(cells))
    ]
    size = len(x.values) * len(y.values)
    keep = not plot.no_fixed_seeds
    extra: dict[str, str] = {"Script": XyzPlot.title}
    extra |= x.extra(fixed_seeds=keep) | y.extra(fixed_seeds=keep)
    told: dict[str, Any] = {"legend": plot.draw_legend, "omits": _omitted(cells[0].payload)}
    subs = tuple(
        GridPlan(
            tiles=tuple(tiles[first : first + size]),
            rows=len(y.values),
            above=x.texts(),
            beside=y.texts(),
            margin=plot.margin,
            infotext_of=first * each,
            extra=extra,
            **told,
        )
        for first in range(0, len(cells), size)
    )
    main = GridPlan(tiles=subs, rows=1, above=z.texts(), extra=extra | z.extra(fixed_seeds=keep), **told)
    return Arrangement(
        grids=(main, *(subs if plot.include_sub_grids else ())),
        lone_pictures=plot.include_lone_images,
        script=True,
        repeated=tuple(range(0, len(cells) * each, size * each)) if plot.include_sub_grids else (),
        negatives=each,
    )


def _omitted(cell: Txt2ImgPayload) -> tuple[str, ...]:
    overrides = cell.override_settings or {}
    return tuple(key for key, option in _OPTIONS_OF_TEXT.items() if option in overrides)


def _dispatch(lines: tuple[_Line, _Line, _Line], places: list[tuple[int, int, int]]) -> tuple[int, ...]:
    """The cells with the dearest axis outermost, so that it changes the least often."""
    dear = sorted(range(3), key=lambda i: -lines[i].axis.cost)
    return tuple(
        sorted(range(len(places)), key=lambda cell: [places[cell][2 - i] for i in dear if lines[i].axis.cost])
    )
