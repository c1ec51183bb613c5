"""What a script makes of one request: cells, each a request of its own, and the grids of their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atelier.contract.errors import LimitExceeded
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import Arrangement
from atelier.seeds import Draw

MAX_PICTURES = 1_000
"""Of one job with a script."""


@dataclass(frozen=True)
class Cell:
    """A request without a script and with its seed fixed. `place` says which it is, for messages."""

    payload: Txt2ImgPayload
    place: str

    @property
    def pictures(self) -> int:
        """How many pictures it makes."""
        return pictures_of(self.payload)


@dataclass(frozen=True)
class Expansion:
    """The cells in the order in which their pictures stand in the job, how these are laid out, and the cells'
    indices in the order in which they are best dispatched: what is costly to change changes rarely.
    """

    cells: tuple[Cell, ...]
    arrangement: Arrangement
    dispatch: tuple[int, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def order(self) -> tuple[int, ...]:
        """`dispatch`, or the cells as they stand."""
        return self.dispatch or tuple(range(len(self.cells)))


def pictures_of(payload: Txt2ImgPayload) -> int:
    """How many pictures a request asks for; what is out of bounds counts as 1 and is refused elsewhere."""
    return max(1, payload.batch_size or 1) * max(1, payload.n_iter or 1)


def cell_of(payload: Txt2ImgPayload, changes: Mapping[str, Any]) -> Txt2ImgPayload:
    """The request with `changes` and without its script. A field counts as given where the caller or the
    script gave it.
    """
    plain = payload.model_copy(update={**changes, "script_name": None, "script_args": []})
    given = (payload.model_fields_set | set(changes)) - {"script_name", "script_args"}
    plain.__pydantic_fields_set__.clear()
    plain.__pydantic_fields_set__.update(given)
    return plain


def fixed(seed: int | None, draw: Draw) -> int:
    """The seed, or a drawn one where it is left to chance."""
    return draw() if seed is None or seed == -1 else seed


def within_reason(pictures: int, said: str) -> None:
    """Raises LimitExceeded for a script that asks for more pictures than one job may have; `said` describes
    them.
    """
    if pictures > MAX_PICTURES:
        raise LimitExceeded(
            f"{said}: {pictures:,} pictures, and a job may have {MAX_PICTURES:,}. Ask for fewer at a time.",
            detail={"pictures": pictures, "limit": MAX_PICTURES},
        )


def counted(cells: Iterable[Cell]) -> list[int]:
    """The index of the first picture of each cell."""
    found, index = [], 0
    for cell in cells:
        found.append(index)
        index += cell.pictures
    return found
