"""Which grids a request wants of its pictures, and the options they are drawn by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from atelier.contract.errors import InvalidRequest, LimitExceeded
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import Arrangement, GridPlan, GridStyle
from atelier.scripts.expansion import MAX_PICTURES, Cell, Expansion

GRID_OPTIONS = frozenset(
    {
        "return_grid", "n_rows", "grid_prevent_empty_spots", "grid_only_if_multiple", "grid_background_color",
        "grid_text_active_color", "grid_text_inactive_color", "grid_format", "img_max_size_mp",
        "jpeg_quality", "webp_lossless", "enable_pnginfo",
    }
)  # fmt: skip
"""The peer's options that a grid depends on."""

_RENAMED = {"jpeg_quality": "quality", "webp_lossless": "lossless", "enable_pnginfo": "with_infotext"}
_MOST_MEGAPIXELS = 200
"""What the drawing process has room for, whatever the option says."""


def style_of(request: Txt2ImgPayload, effective: Mapping[str, Any]) -> GridStyle:
    """How the grids of a request are drawn under the caller's effective options. Raises InvalidRequest."""
    fields = {_RENAMED.get(name, name): value for name, value in effective.items() if name in GRID_OPTIONS}
    style = {
        name: value for name, value in fields.items() if name in GridStyle.model_fields and value is not None
    }
    if "grid_format" in style:
        name = str(style["grid_format"]).lower().lstrip(".")
        style["grid_format"] = "jpg" if name == "jpeg" else name
    most = effective.get("img_max_size_mp")
    limit = min(_MOST_MEGAPIXELS, most) if isinstance(most, int | float) and most > 0 else _MOST_MEGAPIXELS
    style |= {"batch_size": max(1, request.batch_size or 1), "most_pixels": int(limit * 1_000_000)}
    try:
        return GridStyle.model_validate(style)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequest(
            f"The option {first['loc'][0]!s} cannot be used: {first['msg']}.",
            detail={"option": str(first["loc"][0])},
        ) from error


def plain(request: Txt2ImgPayload, effective: Mapping[str, Any]) -> Expansion:
    """A request without a script as its one cell: with save_images and several pictures a grid of them stands
    in front.
    """
    style, cell = style_of(request, effective), Cell(request, "")
    alone = Expansion((cell,), Arrangement(style=style))
    wanted = bool(request.save_images) and effective.get("return_grid", True) is not False
    if not wanted or cell.pictures < (2 if style.grid_only_if_multiple else 1):
        return alone
    try:
        drawable((cell,), style)
    except LimitExceeded as error:
        return replace(alone, warnings=(error.message,))
    grid = GridPlan(tiles=tuple(range(min(cell.pictures, MAX_PICTURES))))
    return Expansion((cell,), Arrangement(grids=(grid,), style=style))


def drawable(cells: Sequence[Cell], style: GridStyle, margin: int = 0) -> None:
    """Raises LimitExceeded where the pictures of `cells`, `margin` pixels apart, make a grid of more pixels
    than are drawn.
    """
    sizes = [_size(cell.payload) for cell in cells]
    pixels = (max(width for width, _ in sizes) + margin) * (max(height for _, height in sizes) + margin)
    pixels *= sum(cell.pictures for cell in cells)
    if pixels > style.most_pixels:
        raise LimitExceeded(
            f"The grid would have {pixels / 1e6:,.0f} megapixels; at most {style.most_pixels / 1e6:,.0f} are "
            "drawn. Ask for fewer or smaller pictures.",
            detail={"megapixels": round(pixels / 1e6), "limit": round(style.most_pixels / 1e6)},
        )


def _size(request: Txt2ImgPayload) -> tuple[int, int]:
    """About how large a request's pictures are: (width, height) in pixels."""
    width, height = request.width or 512, request.height or 512
    if not request.enable_hr:
        return width, height
    scale = request.hr_scale or 1.0
    across, down = request.hr_resize_x or 0, request.hr_resize_y or 0
    if across or down:
        return across or down * width // max(1, height), down or across * height // max(1, width)
    return int(width * scale), int(height * scale)
