"""The preprocessors: each on a picture whose map is known, and maps made as large as the result."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atelier import preprocessors
from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, ModelUnusable, UnknownName
from tests.control_files import save_detector
from workers.engine import hed
from workers.engine.loader.checkpoint import ModelFile
from workers.preprocessing import pictures, thinning
from workers.preprocessing.drawing import DRAWN, Numbers
from workers.preprocessing.pictures import Array, Size


def square() -> Array:
    """A white square in the middle of 64 x 96 black pixels."""
    made = np.zeros((64, 96, 3), dtype=np.uint8)
    made[16:48, 32:64] = 255
    return made


def gradient() -> Array:
    """Colours that grow from left to right and from top to bottom, [64, 64, 3]."""
    rows, columns = np.mgrid[0:64, 0:64]
    return np.stack([rows * 4, columns * 4, (rows + columns) * 2], axis=2).astype(np.uint8)


def png(made: Array) -> bytes:
    out = io.BytesIO()
    Image.fromarray(made).save(out, "PNG")
    return out.getvalue()


def test_every_preprocessor_that_needs_no_network_makes_a_map_of_three_channels() -> None:
    free = [each for each in preprocessors.SERVED if each.file is None]
    assert {each.name for each in free} == set(DRAWN)
    for each in free:
        values = [slider.value if slider else 0.5 for slider in (each.a, each.b)]
        made = DRAWN[each.name](gradient(), Numbers(64, *values, seed=3))
        assert made.dtype == np.uint8 and made.shape == (64, 64, 3), each.name


def test_canny_finds_the_edges_of_a_square_one_pixel_wide() -> None:
    made = DRAWN["canny"](square(), Numbers(64, 100, 200))[..., 0]
    assert set(np.unique(made)) == {0, 255}
    assert made[32].nonzero()[0].tolist() in ([31, 64], [32, 63], [31, 63], [32, 64])
    assert not made[20:44, 36:60].any()


def test_simple_maps_are_what_they_say() -> None:
    picture = gradient()
    assert (DRAWN["none"](picture, Numbers()) == picture).all()
    assert (DRAWN["invert"](picture, Numbers()) == 255 - picture).all()
    marked = DRAWN["threshold"](picture, Numbers(64, 100))[..., 0] == 255
    assert (marked == (picture.min(axis=2) > 100)).all()
    assert (DRAWN["tile_resample"](picture, Numbers(64, 1.0)) == picture).all()
    assert DRAWN["tile_resample"](picture, Numbers(64, 2.0)).shape == (32, 32, 3)
    assert (DRAWN["recolor_intensity"](picture, Numbers(64, 1.0))[..., 1] == picture.max(axis=2)).all()
    dark = DRAWN["lineart_standard"](255 - square(), Numbers(64))
    assert dark[32, 48].max() == 0 or dark.max() > 0


def test_a_blur_spreads_and_keeps_the_mean() -> None:
    made = DRAWN["blur_gaussian"](square(), Numbers(64, 3.0)).astype(float)
    assert 60 < made[32, 32, 0] < 200
    assert made.mean() == pytest.approx(square().mean(), abs=2)


def test_shuffling_depends_on_the_seed_alone() -> None:
    first, again, other = (DRAWN["shuffle"](gradient(), Numbers(64, seed=seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_colour_grid_has_squares_of_one_colour() -> None:
    made = DRAWN["color"](gradient(), Numbers(256))
    assert made.shape == (256, 256, 3)
    assert np.unique(made[:64, :64].reshape(-1, 3), axis=0).shape[0] == 1


def test_scribbles_are_black_and_white() -> None:
    made = DRAWN["scribble_xdog"](square(), Numbers(64, 32))
    assert set(np.unique(made)) == {0, 255}


@pytest.mark.parametrize("mode", ["Just Resize", "Crop and Resize", "Resize and Fill"])
def test_a_map_becomes_as_large_as_the_result(mode: pictures.ResizeMode) -> None:
    made = pictures.fitted(square(), Size(64, 64), mode)
    assert made.shape == (64, 64, 3)
    width = int((made[32, :, 0] > 127).sum())
    assert width == {"Just Resize": 22, "Crop and Resize": 32, "Resize and Fill": 22}[mode]
    if mode == "Resize and Fill":
        assert not made[:8].any()


def test_lines_stay_one_pixel_wide_where_a_map_is_enlarged() -> None:
    edges = DRAWN["canny"](square(), Numbers(64, 100, 200))
    assert thinning.is_of_lines(edges)
    made = pictures.fitted(edges, Size(192, 128), "Just Resize")
    assert set(np.unique(made)) == {0, 255}
    assert [int(count) for count in (made[60:68, :, 0] > 0).sum(axis=1)] == [2] * 8


def test_colours_are_counted_by_all_three_channels() -> None:
    """Pictures of a hundred colours, of which any two share a channel with others, keep their colours."""
    made = np.zeros((20, 20, 3), np.uint8)
    for place in range(100):
        row, column = divmod(place, 10)
        made[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = (row * 20, column * 20, (row + column) * 9)
    enlarged = pictures.fitted(made, pictures.Size(40, 40), "Just Resize")
    before = {tuple(each) for each in made.reshape(-1, 3).tolist()}
    assert {tuple(each) for each in enlarged.reshape(-1, 3).tolist()} == before and len(before) == 100


def test_areas_keep_their_colours_where_a_map_is_enlarged() -> None:
    areas = np.zeros((16, 16, 3), dtype=np.uint8)
    areas[:8, :8], areas[8:, :8], areas[:8, 8:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    made = pictures.fitted(areas, Size(40, 40), "Just Resize")
    assert np.unique(made.reshape(-1, 3), axis=0).shape[0] == 4


def test_pixel_perfect_has_a_pixel_for_each_of_the_results() -> None:
    assert pictures.perfect(square(), Size(192, 128), "Crop and Resize") == 128
    assert pictures.perfect(square(), Size(64, 64), "Crop and Resize") == 64
    assert pictures.perfect(square(), Size(64, 64), "Resize and Fill") == 43


def test_what_is_transparent_lies_on_white_and_damaged_files_are_refused() -> None:
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    assert (pictures.read(png(clear)) == 255).all()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        pictures.read(b"nothing")


THIN = [(2000, 1), (1, 2000), (33, 1)]
"""Beyond 1 to 32."""


@pytest.mark.parametrize("sides", THIN)
def test_a_picture_far_longer_than_broad_is_refused_where_it_is_read(sides: tuple[int, int]) -> None:
    width, height = sides
    with pytest.raises(InvalidRequest, match="32 times"):
        pictures.read(png(np.zeros((height, width, 3), dtype=np.uint8)))


@pytest.mark.parametrize("name", ["canny", "threshold", "blur_gaussian", "scribble_xdog", "color", "shuffle"])
def test_no_map_is_drawn_larger_than_the_largest_result(name: str) -> None:
    assert pictures.MOST_PIXELS == limits.MAX_HIRES_SIDE**2
    with pytest.raises(InvalidRequest, match="32,000 x 1,000 pixels"):
        DRAWN[name](np.zeros((4, 128, 3), dtype=np.uint8), Numbers(1000, 3.0, 3.0))


def test_a_long_picture_is_cut_before_it_fills_a_large_result() -> None:
    long = np.zeros((4, 128, 3), dtype=np.uint8)
    long[:, 62:66] = 255
    made = pictures.fitted(long, Size(1024, 1024), "Crop and Resize")
    assert made.shape == (1024, 1024, 3) and made.min() == 255
    with pytest.raises(InvalidRequest, match="would be scaled"):
        pictures.fitted(np.zeros((2, 3, 3), dtype=np.uint8), Size(4096, 4000), "Crop and Resize")


def test_the_detector_draws_soft_edges_safe_ones_in_three_levels_and_scribbles(tmp_path: Path) -> None:
    detector = hed.read_detector(ModelFile(save_detector(tmp_path / "hed.safetensors")))
    numbers = Numbers(64)
    soft = hed.edges(detector, gradient(), numbers)
    assert soft.shape == (64, 64, 3) and np.unique(soft).size > 3
    assert np.unique(hed.edges(detector, gradient(), numbers, safe=True)).size <= 4
    assert set(np.unique(hed.scribble(detector, gradient(), numbers))) <= {0, 255}


def test_a_file_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(save_detector(tmp_path / "hed.safetensors"))
    del tensors["block3.convs.0.weight"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(ModelUnusable, match="edge detector"):
        hed.read_detector(ModelFile(tmp_path / "less.safetensors"))


def test_preprocessors_are_found_by_name_and_label_and_unknown_ones_refused_in_words() -> None:
    assert preprocessors.find("invert (from white bg & black line)").name == "invert"
    assert preprocessors.find("Softedge_HED").name == "hed"
    with pytest.raises(UnknownName, match="Did you mean 'canny'"):
        preprocessors.find("cany")
    with pytest.raises(InvalidRequest, match="is not run here"):
        preprocessors.find("openpose_full")
