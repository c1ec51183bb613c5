"""Grids are drawn as the peer draws them: sizes, places of the pictures, texts."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atelier import grid, gridfile
from atelier.contract.errors import InvalidRequest, LimitExceeded
from atelier.contract.grids import Annotation, Arrangement, GridPlan, GridStyle
from atelier.resolve import resolve_txt2img
from tests.unit.atelier.test_infotext import CATALOGUE
from tests.unit.atelier.test_scripts import GOLDEN

STYLE = GridStyle()
RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)
COLORS = (RED, GREEN, BLUE, GREY)


def picture(index: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, COLORS[index % 4])


def drawn(plan: GridPlan, style: GridStyle = STYLE, sizes: dict[int, tuple[int, int]] | None = None) -> Any:
    known = sizes or dict.fromkeys(plan.pictures(), (8, 6))
    image = grid.draw(plan, style, known, lambda index: picture(index, known[index]))
    assert image is not None
    assert image.size == grid.measured(plan, style, known)
    return np.asarray(image)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "xyz-seed"])
def test_the_peers_grids_are_drawn_again_pixel_by_pixel_legends_included(golden: Path, name: str) -> None:
    case = json.loads((golden / "cases" / f"{name}.json").read_text())
    laid = resolve_txt2img(case["payload"], CATALOGUE, answering=True).arrangement
    files = [golden / "cases" / each for each in case["images"]]
    pictures = [grid.opened(file.read_bytes()) for file in files[len(laid.grids) :]]
    sizes = {i: image.size for i, image in enumerate(pictures)}
    for plan, file in zip(laid.grids, files, strict=False):
        ours = grid.draw(plan, laid.style, sizes, lambda i: pictures[i].copy())
        assert ours is not None
        theirs = grid.opened(file.read_bytes()).convert("RGB")
        assert np.array_equal(np.asarray(ours), np.asarray(theirs)), file.name


@pytest.mark.parametrize("name", GOLDEN)
def test_the_infotexts_of_grids_are_the_peers_to_the_letter(golden: Path, name: str) -> None:
    case = json.loads((golden / "cases" / f"{name}.json").read_text())
    resolution = resolve_txt2img(case["payload"], CATALOGUE, answering=True)
    for plan, theirs in zip(resolution.arrangement.grids, case["info"]["infotexts"], strict=False):
        part, index = gridfile.part_of(resolution.parts, plan.infotext_of)
        ours = gridfile.text_of(plan, part, index)
        assert ours.rpartition(", Version: ")[0] == theirs.rpartition(", Version: ")[0]


def test_pictures_stand_row_by_row_and_a_missing_one_leaves_its_place_empty() -> None:
    pixels = drawn(GridPlan(tiles=(0, 1, 2, 3), rows=2), sizes={0: (8, 6), 1: (8, 6), 3: (8, 6)})
    assert pixels.shape == (12, 16, 3)
    corners = [tuple(pixels[y, x]) for y in (0, 6) for x in (0, 8)]
    assert corners == [RED, GREEN, (255, 255, 255), GREY]


def test_a_plain_grid_closes_ranks_where_pictures_are_missing() -> None:
    pixels = drawn(GridPlan(tiles=(0, 1, 2, 3)), sizes={0: (8, 6), 2: (8, 6)})
    assert pixels.shape == (6, 16, 3)
    assert [tuple(pixels[0, x]) for x in (0, 8)] == [RED, BLUE]


def test_a_smaller_picture_stands_in_the_middle_of_its_place() -> None:
    pixels = drawn(GridPlan(tiles=(0, 1), rows=1), sizes={0: (8, 8), 1: (4, 2)})
    assert tuple(pixels[3, 10]) == tuple(pixels[4, 13]) == GREEN
    assert tuple(pixels[2, 10]) == tuple(pixels[3, 9]) == (255, 255, 255)


def test_margins_and_texts_leave_the_pictures_whole() -> None:
    texts = ((Annotation(text="one"),), (Annotation(text="two"),))
    plan = GridPlan(tiles=(0, 1, 2, 3), rows=2, legend=True, above=texts, beside=texts, margin=5)
    pixels = drawn(plan, sizes=dict.fromkeys(range(4), (100, 100)))
    left, top = 75, pixels.shape[0] - 205
    assert pixels.shape[1] == left + 205
    assert 0 < top < 40
    for index, (x, y) in enumerate([(0, 0), (105, 0), (0, 105), (105, 105)]):
        tile = pixels[top + y : top + y + 100, left + x : left + x + 100]
        assert (tile == COLORS[index]).all()
    assert (pixels[top:, left + 100 : left + 105] == 255).all()
    assert (pixels[:top, left : left + 100] < 128).any(), "there is a text above"
    assert (pixels[top : top + 100, :left] < 128).any(), "there is a text beside"


def test_a_text_that_is_not_active_is_grey_and_struck_through() -> None:
    def legend(active: bool) -> Any:
        words = ((Annotation(text="word", active=active),),)
        plan = GridPlan(tiles=(0,), rows=1, legend=True, above=words)
        pixels = drawn(plan, sizes={0: (100, 100)})
        return pixels[: pixels.shape[0] - 100]

    assert legend(True).min() < 60
    assert legend(False).min() == 0x99
    through = (legend(False) == 0x99).sum(axis=1).max()
    assert through > 3 * (legend(True) < 0x99).sum(axis=1).max() / 2


def test_a_long_word_is_set_smaller_and_a_long_text_in_lines() -> None:
    def above(text: str) -> Any:
        plan = GridPlan(tiles=(0,), rows=1, legend=True, above=((Annotation(text=text),),))
        pixels = drawn(plan, sizes={0: (100, 100)})
        return pixels[: pixels.shape[0] - 100]

    assert above("many words that need more room than there is").shape[0] > above("word").shape[0] + 8
    inked = [(above(text).min(axis=(1, 2)) < 200).sum() for text in ("ab", "ab" * 20)]
    assert 0 < inked[1] < inked[0]


def test_texts_of_every_script_can_be_drawn() -> None:
    words = ((Annotation(text="größe 尺寸 \U0001f600 اختبار"),),)
    assert drawn(GridPlan(tiles=(0,), rows=1, legend=True, above=words), sizes={0: (64, 64)}).shape[0] > 64


@pytest.mark.parametrize(
    ("pictures", "style", "rows"),
    [
        (4, {}, 2),
        (5, {}, 2),
        (7, {}, 3),
        (2, {}, 1),
        (8, {"n_rows": 4}, 4),
        (3, {"n_rows": 4}, 3),
        (8, {"n_rows": 0, "batch_size": 2}, 2),
        (8, {"grid_prevent_empty_spots": True}, 2),
        (7, {"grid_prevent_empty_spots": True}, 1),
    ],
)
def test_rows_of_a_plain_grid(pictures: int, style: dict[str, Any], rows: int) -> None:
    assert grid.row_count(pictures, GridStyle(**style)) == rows


@given(st.integers(1, 800))
def test_rows_leave_no_empty_row_and_no_empty_place_where_asked(pictures: int) -> None:
    rows = grid.row_count(pictures, GridStyle())
    assert 1 <= rows <= pictures
    assert math.ceil(pictures / rows) * (rows - 1) < pictures + rows
    full = grid.row_count(pictures, GridStyle(grid_prevent_empty_spots=True))
    assert pictures % full == 0


def test_the_background_is_what_the_option_says_and_nonsense_is_refused() -> None:
    plan = GridPlan(tiles=(0, 1, 2), rows=2)
    assert tuple(drawn(plan, GridStyle(grid_background_color="#102030"))[8, 12]) == (0x10, 0x20, 0x30)
    with pytest.raises(InvalidRequest, match="no color"):
        grid.color_of("blurple")


def test_a_grid_that_has_grown_beyond_the_limit_is_not_drawn() -> None:
    with pytest.raises(LimitExceeded):
        drawn(GridPlan(tiles=(0, 1)), GridStyle(most_pixels=1000), {0: (100, 100), 1: (100, 100)})


def test_pictures_are_opened_one_after_the_other_and_closed_again() -> None:
    opened: list[Image.Image] = []

    class Closing(Image.Image):
        closed = False

        def __exit__(self, *error: object) -> None:
            self.closed = True

    def one(index: int) -> Image.Image:
        assert all(each.closed for each in opened if isinstance(each, Closing))
        image = Closing()
        image.__dict__.update(picture(index).__dict__)
        opened.append(image)
        return image

    assert grid.draw(GridPlan(tiles=(0, 1, 2)), STYLE, dict.fromkeys(range(3), (8, 6)), one) is not None
    assert len(opened) == 3


def test_a_grid_file_carries_its_infotext_in_the_format_the_option_names() -> None:
    request = {"prompt": "x", "seed": 4, "n_iter": 3, "save_images": True, "width": 64, "height": 64}
    resolution = resolve_txt2img(request | {"override_settings": {"grid_format": "webp"}}, CATALOGUE)
    sizes = dict.fromkeys(range(3), (64, 64))
    [file] = gridfile.files(
        resolution.arrangement, resolution.parts, sizes, lambda index: picture(index, (64, 64))
    )
    assert (file.extension, file.media_type, file.seed) == ("webp", "image/webp", 4)
    with Image.open(io.BytesIO(file.data)) as image:
        assert image.size == (file.width, file.height) == (128, 128)
        assert "Seed: 4" in image.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "ignore")


def test_a_plain_grid_of_what_is_left_needs_two_pictures() -> None:
    resolution = resolve_txt2img({"n_iter": 3, "save_images": True}, CATALOGUE)
    few = gridfile.files(resolution.arrangement, resolution.parts, {1: (8, 6)}, picture)
    assert list(few) == []
    assert list(gridfile.files(Arrangement(), resolution.parts, {1: (8, 6)}, picture)) == []


def test_a_damaged_picture_is_named_as_such() -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        grid.opened(b"\x89PNG\r\n\x1a\n and then nothing")


def test_a_legend_is_cut_where_it_could_not_be_read() -> None:
    texts = (Annotation(text="W" * 15_000),)
    plan = GridPlan(tiles=(0, 1), rows=1, legend=True, above=(texts, texts))
    drawn = grid.draw(plan, GridStyle(), {0: (64, 64), 1: (64, 64)}, lambda _: Image.new("RGB", (64, 64)))
    assert drawn is not None and drawn.height < 64 + 2_000
