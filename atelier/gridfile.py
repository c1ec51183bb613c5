"""Grids as picture files, with the infotext the peer gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from atelier import infotext, picturefile
from atelier.contract.grids import Arrangement, GridPlan
from atelier.contract.parts import PictureFormat, ResolvedPart
from atelier.grid import Open, Size, draw


@dataclass(frozen=True)
class GridFile:
    """A drawn grid: its file, its size in pixels, and what it tells of the picture it stands for."""

    data: bytes
    media_type: str
    extension: str
    width: int
    height: int
    infotext: str
    picture: int
    """The index of the picture it stands for."""
    seed: int
    subseed: int
    recipe_hash: str
    complete: bool
    """Whether every picture of the plan is in it."""


def files(
    arrangement: Arrangement, parts: Sequence[ResolvedPart], sizes: Mapping[int, Size], picture: Open
) -> Iterator[GridFile]:
    """The grids of a job, one after the other, of the pictures that are there (`sizes`: their width and
    height by index). `parts` in the order of their pictures.

    A plain grid of fewer pictures than it takes is left out. Raises LimitExceeded for more pixels than are
    drawn.
    """
    for plan in arrangement.grids:
        there = [index for index in plan.pictures() if index in sizes]
        few = not arrangement.script and arrangement.style.grid_only_if_multiple and len(there) < 2
        if there and not few:
            yield from _file(plan, arrangement, parts, sizes, picture)


def _file(
    plan: GridPlan,
    arrangement: Arrangement,
    parts: Sequence[ResolvedPart],
    sizes: Mapping[int, Size],
    picture: Open,
) -> Iterator[GridFile]:
    style = arrangement.style
    drawn = draw(plan, style, sizes, picture)
    if drawn is None:
        return
    part, i = part_of(parts, plan.infotext_of)
    text = text_of(plan, part, i)
    form = PictureFormat(
        name=style.grid_format,
        quality=style.quality,
        lossless=style.lossless,
        with_infotext=style.with_infotext,
    )
    encoded = picturefile.encode(drawn, form, text, part.recipe_hash)
    yield GridFile(
        data=encoded.data,
        media_type=encoded.media_type,
        extension=encoded.extension,
        width=drawn.width,
        height=drawn.height,
        infotext=text,
        picture=plan.infotext_of,
        seed=part.seeds[i],
        subseed=part.subseeds[i],
        recipe_hash=part.recipe_hash,
        complete=all(index in sizes for index in plan.pictures()),
    )


def text_of(plan: GridPlan, part: ResolvedPart, index: int) -> str:
    """The infotext of a grid: that of picture `index` of `part`, without some entries and with its own."""
    told = part.model_copy(
        update={
            "extra_params": {**part.extra_params, **plan.extra},
            "infotext_omits": (*part.infotext_omits, *plan.omits),
        }
    )
    return infotext.render(told, index)


def part_of(parts: Sequence[ResolvedPart], index: int) -> tuple[ResolvedPart, int]:
    """The part that makes the job's picture `index`, and which of its pictures that is."""
    for part in parts:
        if index < part.batch_size:
            return part, index
        index -= part.batch_size
    raise IndexError("the job has no such picture")
