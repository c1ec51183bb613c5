"""How the pictures of a job are laid out for people: the grids drawn of them, and which of them stand in the
answer.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from atelier.contract.parts import Frozen


class Annotation(Frozen):
    """A text beside a grid; one that is not `active` is struck through."""

    text: str
    active: bool = True


class GridPlan(Frozen):
    """A grid that is drawn once its pictures are there. A tile is the index of a picture in its job, or a
    grid within the grid.
    """

    tiles: tuple[int | GridPlan, ...]
    rows: int | None = None
    """None: by the style's rule, from the pictures that exist; else a tile that is missing leaves its place
    empty.
    """
    legend: bool = False
    """Whether the texts and the margin are drawn."""
    above: tuple[tuple[Annotation, ...], ...] = ()
    """One entry for each column: the lines over it."""
    beside: tuple[tuple[Annotation, ...], ...] = ()
    """One entry for each row: the lines left of it."""
    margin: int = 0
    """Pixels between the tiles of a grid with a legend."""
    infotext_of: int = 0
    """The picture whose parameters stand for the grid."""
    extra: dict[str, Any] = {}
    """Infotext entries of the grid alone, after that picture's."""
    omits: tuple[str, ...] = ()
    """Keys of that picture's parameters that the grid's infotext leaves out."""

    def pictures(self) -> tuple[int, ...]:
        """The indices of all pictures in it, in order."""
        return tuple(
            index for tile in self.tiles for index in ((tile,) if isinstance(tile, int) else tile.pictures())
        )


_COLOR = r"^#[0-9a-fA-F]{6}$"


class GridStyle(Frozen):
    """The options that a grid's look depends on, by the peer's names."""

    n_rows: int = Field(default=-1, ge=-1, le=64)
    """-1: as square as can be; 0: as many as a batch has pictures."""
    batch_size: int = 1
    grid_prevent_empty_spots: bool = False
    grid_only_if_multiple: bool = True
    grid_background_color: str = Field(default="#ffffff", pattern=_COLOR)
    grid_text_active_color: str = Field(default="#000000", pattern=_COLOR)
    grid_text_inactive_color: str = Field(default="#999999", pattern=_COLOR)
    grid_format: Literal["png", "jpg", "webp", "avif"] = "png"
    quality: int = Field(default=80, ge=1, le=100)
    lossless: bool = False
    with_infotext: bool = True
    most_pixels: int = 200_000_000


class Arrangement(Frozen):
    """What a job's answer shows: its grids in front, then its pictures, or the grids alone."""

    grids: tuple[GridPlan, ...] = ()
    style: GridStyle = GridStyle()
    lone_pictures: bool = True
    """Whether the single pictures stand in the answer too. They are kept with the job in any case."""
    script: bool = False
    """Whether a script made the grids: then the answer begins with one whatever becomes of the job."""
    repeated: tuple[int, ...] = ()
    """Pictures whose prompt and seed the answer's lists name once more in front, for the grids of an X/Y/Z
    plot.
    """
    negatives: int | None = None
    """How many negative prompts the answer's list names; None for all."""
