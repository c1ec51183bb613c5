"""Drawing grids of pictures as the peer lays them out. Pillow is used here and in atelier/picturefile.py
alone.

A grid is measured first, from the sizes of its pictures, then painted into one canvas: pictures are opened
one after the other, and grids within it need no canvas of their own.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFont

from atelier.contract.errors import InvalidRequest, LimitExceeded
from atelier.contract.grids import Annotation, GridPlan, GridStyle

Size = tuple[int, int]
Open = Callable[[int], Image.Image]
"""The picture of that index; it is closed by the one who asked for it."""

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
_CLUSTER = re.compile(r"f[fijlt]+|\S")
"""What is set as one: letters that may become a ligature, or a single one."""
_SLACK = 1.5
"""How far texts and sizes that were not foreseen may exceed the limit that was checked at acceptance."""
_STRIKE = 4
"""Width in pixels of the line through a text that is not active."""


class _Word(NamedTuple):
    """A line of a legend as it is set: its text, whether it is active, its extent in pixels."""

    text: str
    active: bool
    width: int
    height: int


@dataclass(frozen=True)
class _Legend:
    """What stands above and beside a grid, and the room it takes."""

    font_size: int
    above: tuple[tuple[_Word, ...], ...]
    beside: tuple[tuple[_Word, ...], ...]
    left: int
    top: int

    @property
    def leading(self) -> int:
        """Pixels between two lines."""
        return self.font_size // 2


@dataclass(frozen=True)
class _Sheet:
    """A measured grid: `tiles` are picture indices, measured grids, or None for what is missing."""

    tiles: tuple[int | _Sheet | None, ...]
    sizes: tuple[Size | None, ...]
    tile: Size
    columns: int
    rows: int
    margin: int
    legend: _Legend | None

    @property
    def size(self) -> Size:
        """Width and height in pixels of the whole."""
        left, top = (self.legend.left, self.legend.top) if self.legend else (0, 0)
        return (
            left + self.columns * self.tile[0] + self.margin * (self.columns - 1),
            top + self.rows * self.tile[1] + self.margin * (self.rows - 1),
        )

    def corner(self, place: int) -> Size:
        """The upper left corner of a tile's room."""
        left, top = (self.legend.left, self.legend.top) if self.legend else (0, 0)
        column, row = place % self.columns, place // self.columns
        return left + column * (self.tile[0] + self.margin), top + row * (self.tile[1] + self.margin)


def draw(plan: GridPlan, style: GridStyle, sizes: Mapping[int, Size], picture: Open) -> Image.Image | None:
    """The grid as an RGB image; None where none of its pictures is there.

    `sizes`: width and height in pixels of those that are. Raises LimitExceeded for more pixels than are
    drawn.
    """
    sheet = _measured(plan, style, sizes)
    if sheet is None:
        return None
    width, height = sheet.size
    if width * height > style.most_pixels * _SLACK:
        raise LimitExceeded(f"The grid would have {width} x {height} pixels, which is more than are drawn.")
    canvas = Image.new("RGB", sheet.size, color_of(style.grid_background_color))
    _paint(canvas, (0, 0), sheet, style, picture)
    return canvas


def opened(data: bytes) -> Image.Image:
    """The pixels of a picture file of ours. Raises InvalidRequest for a damaged one."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        image.load()
    except Exception as error:  # Pillow's readers raise anything at all for damaged files
        raise InvalidRequest("A picture of the grid cannot be read: its file is damaged.") from error
    return image


def measured(plan: GridPlan, style: GridStyle, sizes: Mapping[int, Size]) -> Size | None:
    """The width and height in pixels `draw` would give."""
    sheet = _measured(plan, style, sizes)
    return sheet.size if sheet else None


def color_of(name: str) -> tuple[int, ...]:
    """Red, green and blue of a color as CSS writes it. Raises InvalidRequest."""
    try:
        return ImageColor.getcolor(name, "RGB")[:3]  # type: ignore[index]
    except (ValueError, TypeError):
        raise InvalidRequest(f"{name[:40]!r} is no color. Write it as #rrggbb.") from None


def row_count(pictures: int, style: GridStyle) -> int:
    """How many rows a grid of so many pictures has where nothing else says it."""
    if style.n_rows > 0:
        rows = style.n_rows
    elif style.n_rows == 0:
        rows = style.batch_size
    elif style.grid_prevent_empty_spots:
        rows = next(each for each in range(math.isqrt(pictures), 0, -1) if pictures % each == 0)
    else:
        rows = round(math.sqrt(pictures))
    return max(1, min(rows, pictures))


def _measured(plan: GridPlan, style: GridStyle, sizes: Mapping[int, Size]) -> _Sheet | None:
    tiles: list[int | _Sheet | None] = []
    for tile in plan.tiles:
        if isinstance(tile, GridPlan):
            tiles.append(_measured(tile, style, sizes))
        else:
            tiles.append(tile if tile in sizes else None)
    if plan.rows is None:
        tiles = [tile for tile in tiles if tile is not None]
    found = [_size(tile, sizes) for tile in tiles]
    there = [size for size in found if size is not None]
    if not there:
        return None
    tile_size = max(width for width, _ in there), max(height for _, height in there)
    rows = row_count(len(tiles), style) if plan.rows is None else min(plan.rows, len(tiles))
    columns = -(-len(tiles) // rows)
    legend = _legend(plan, tile_size) if plan.legend else None
    return _Sheet(tuple(tiles), tuple(found), tile_size, columns, rows, plan.margin if legend else 0, legend)


def _size(tile: int | _Sheet | None, sizes: Mapping[int, Size]) -> Size | None:
    if tile is None:
        return None
    return sizes[tile] if isinstance(tile, int) else tile.size


def _paint(canvas: Image.Image, at: Size, sheet: _Sheet, style: GridStyle, picture: Open) -> None:
    for place, (tile, size) in enumerate(zip(sheet.tiles, sheet.sizes, strict=True)):
        if tile is None or size is None:
            continue
        x, y = sheet.corner(place)
        # What is smaller than the largest stands in the middle of its room.
        corner = at[0] + x + (sheet.tile[0] - size[0]) // 2, at[1] + y + (sheet.tile[1] - size[1]) // 2
        if isinstance(tile, int):
            with picture(tile) as opened:
                canvas.paste(opened.convert("RGB"), corner)
        else:
            _paint(canvas, corner, tile, style, picture)
    if sheet.legend is not None:
        _write(canvas, at, sheet, sheet.legend, style)


def _legend(plan: GridPlan, tile: Size) -> _Legend:
    """The texts wrapped to the room they have: a column above, three quarters of a tile's width beside."""
    font_size = max(1, (tile[0] + tile[1]) // 25)
    leading = font_size // 2
    beside_width = tile[0] * 3 // 4 if any(each.text for row in plan.beside for each in row) else 0
    above = tuple(_set(texts, font_size, tile[0]) for texts in plan.above)
    beside = tuple(_set(texts, font_size, beside_width) for texts in plan.beside)
    heights = [_height(words, leading) for words in above]
    top = max(heights, default=0) + 2 * leading if any(heights) else 0
    return _Legend(font_size, above, beside, beside_width, top)


_LONGEST_LABEL = 300
"""Characters of one text beside a grid."""


def _set(texts: Sequence[Annotation], font_size: int, room: int) -> tuple[_Word, ...]:
    return tuple(
        _Word(line, text.active, *_extent(line, font_size))
        for text in texts
        for line in _wrapped(_short(text.text), font_size, room)
    )


def _short(text: str) -> str:
    """What there is room for in a legend: setting a longer text would take minutes."""
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _wrapped(text: str, font_size: int, room: int) -> list[str]:
    """Lines of whole words, each within `room` where a single word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(font_size).getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _extent(line: str, font_size: int) -> Size:
    left, top, right, bottom = _scratch().multiline_textbbox((0, 0), line, font=_font(font_size))
    return int(right - left), int(bottom - top)


def _height(words: Sequence[_Word], leading: int) -> int:
    return sum(word.height + leading for word in words) - leading if words else 0


def _write(canvas: Image.Image, at: Size, sheet: _Sheet, legend: _Legend, style: GridStyle) -> None:
    colors = color_of(style.grid_text_active_color), color_of(style.grid_text_inactive_color)
    width, height = sheet.tile
    for column, words in enumerate(legend.above):
        x = at[0] + legend.left + column * (width + sheet.margin) + width / 2
        y = at[1] + legend.top / 2 - _height(words, legend.leading) / 2
        _column(canvas, (x, y), words, legend, width, colors)
    for row, words in enumerate(legend.beside):
        x = at[0] + legend.left / 2
        middle = legend.top + row * (height + sheet.margin) + height / 2
        y = at[1] + middle - sum(word.height for word in words) / 2
        _column(canvas, (x, y), words, legend, legend.left, colors)


def _column(
    canvas: Image.Image,
    at: tuple[float, float],
    words: Sequence[_Word],
    legend: _Legend,
    room: int,
    colors: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """Lines below each other, centred on `at`'s x; a word wider than its room is set smaller."""
    x, y = at
    for word in words:
        font_size = legend.font_size
        while font_size > 1 and _extent(word.text, font_size)[0] > room:
            font_size -= 1
        color = colors[0] if word.active else colors[1]
        _line(canvas, (x, y + word.height / 2), word.text, font_size, color)
        if not word.active:
            through, half = y + word.height // 2, word.width // 2
            pen = ImageDraw.Draw(canvas)
            pen.line((x - half, through, x + half, through), fill=color, width=_STRIKE)
        y += word.height + legend.leading


def _line(
    canvas: Image.Image, at: tuple[float, float], text: str, font_size: int, color: tuple[int, ...]
) -> None:
    """A line of text with its middle at `at`.

    Glyphs are laid over each other by the darker of the two, as the peer's Pillow 9.5 has it; later ones add
    them up. Scripts whose glyphs depend on their neighbours are set in one piece.
    """
    font = _font(font_size)
    length, pad = font.getlength(text), 2 * font_size
    middle = int(length) // 2 + pad, pad
    (right, x), (down, y) = math.modf(at[0]), math.modf(at[1])
    shape = Image.new("L", (2 * middle[0], 2 * middle[1]))
    if not text.isascii():
        ImageDraw.Draw(shape).text((middle[0] + right, pad + down), text, font=font, fill=255, anchor="mm")
    for cluster in _CLUSTER.finditer(text) if text.isascii() else ():
        pen = font.getlength(text[: cluster.end()]) - font.getlength(cluster[0])
        start = middle[0] + math.floor(pen + right + 0.5) - math.floor(length / 2 + 0.5)
        glyph = Image.new("L", shape.size)
        ImageDraw.Draw(glyph).text((start, pad + down), cluster[0], font=font, fill=255, anchor="lm")
        shape = ImageChops.lighter(shape, glyph)
    canvas.paste(color, (int(x) - middle[0], int(y) - middle[1]), shape)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Roboto Regular (Apache License 2.0), which the peer's grids are set in."""
    data = resources.files("atelier").joinpath("data/fonts/Roboto-Regular.ttf").read_bytes()
    return ImageFont.truetype(io.BytesIO(data), size)


@functools.cache
def _scratch() -> ImageDraw.ImageDraw:
    return ImageDraw.Draw(Image.new("RGB", (1, 1)))
