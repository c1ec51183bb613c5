"""The demo checkpoint's pictures and their judge: numpy and Pillow alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.training.demo.judge import judge
from workers.training.demo.shapes import (
    COLOURS,
    PALETTE,
    SHAPES,
    SPANS,
    Scene,
    coverage,
    draw,
    held_out,
    is_held_out,
    placed,
    random_placement,
    random_scene,
)
from workers.training.demo.wordings import attributes, canonical, caption, encode

RED_CIRCLE = Scene("circle", "red", "blue")


def ideal(scene: Scene) -> np.ndarray:
    low, high = SPANS[scene.size]
    return draw(scene, placed(scene, (low + high) / 2))


def test_there_are_eight_colours_far_apart_and_the_usual_four_are_among_them() -> None:
    values = np.asarray(list(PALETTE.values()), dtype=float)
    distances = np.linalg.norm(values[:, None] - values[None], axis=-1)
    assert len(COLOURS) == 8
    assert {"red", "green", "blue", "yellow"} <= set(COLOURS)
    assert distances[~np.eye(8, dtype=bool)].min() > 80


def test_the_canonical_wording_is_the_one_of_the_product() -> None:
    assert canonical(RED_CIRCLE) == "a red circle on a blue background"


@pytest.mark.parametrize("shape", SHAPES)
def test_without_words_a_shape_is_centred_and_spans_half_the_side(shape: str) -> None:
    for span in SPANS[""]:
        mask = coverage(shape, placed(Scene(shape, "red", "blue"), span)) >= 0.5
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer / 128 == pytest.approx(span, abs=0.03)
        assert (rows[0] + rows[-1] + 1) / 256 == pytest.approx(0.5, abs=0.03)
        assert (columns[0] + columns[-1] + 1) / 256 == pytest.approx(0.5, abs=0.03)
    assert SPANS[""] == (0.45, 0.65)


def test_a_position_word_moves_the_shape_that_way() -> None:
    left, right = (
        ideal(Scene("square", "white", "black", position=word))[..., 0] for word in ("left", "right")
    )
    assert left[:, :64].mean() > left[:, 64:].mean()
    assert right[:, :64].mean() < right[:, 64:].mean()


def test_held_out_scenes_are_64_distinct_and_never_drawn_for_training() -> None:
    scenes = held_out()
    assert len({(scene.shape, scene.colour, scene.background) for scene in scenes}) == 64
    assert all(scene.colour != scene.background for scene in scenes)
    assert {scene.shape for scene in scenes} == set(SHAPES)
    rng = np.random.default_rng(3)
    drawn = [random_scene(rng) for _ in range(3000)]
    assert not any(is_held_out(scene) for scene in drawn)
    assert len({scene.background for scene in drawn}) == 8


def test_the_example_of_the_product_is_not_held_out() -> None:
    assert not is_held_out(RED_CIRCLE)


def test_captions_name_what_is_drawn_in_several_wordings() -> None:
    rng = np.random.default_rng(5)
    scene = Scene("star", "yellow", "purple", "small", "left")
    wordings = {caption(scene, rng) for _ in range(200)}
    assert len(wordings) > 10
    assert sum("star" in text and "yellow" in text and "purple" in text for text in wordings) > 5


def test_a_wording_is_77_tokens_of_the_vocabulary_and_its_attributes_are_read_back() -> None:
    ids = encode(canonical(RED_CIRCLE))
    assert len(ids) == 77
    assert max(ids) < 49408
    other = attributes(canonical(replace(RED_CIRCLE, shape="star")), replace(RED_CIRCLE, shape="star"))
    assert attributes(canonical(RED_CIRCLE), RED_CIRCLE) != other


@pytest.mark.parametrize("scene", held_out()[::5], ids=canonical)
def test_the_judge_accepts_the_ideal_picture(scene: Scene) -> None:
    assert judge(ideal(scene), scene).right


def test_the_judge_accepts_every_placement_that_training_draws() -> None:
    rng = np.random.default_rng(7)
    for scene in held_out():
        assert judge(draw(scene, random_placement(scene, rng)), scene).right, canonical(scene)


def test_the_judge_refuses_another_scenes_picture() -> None:
    scenes = held_out()
    others = (*scenes[9:], *scenes[:9])
    assert sum(judge(ideal(scene), other).right for scene, other in zip(scenes, others, strict=True)) == 0


def test_the_judge_refuses_wrong_colours_wrong_shapes_and_shifted_ones() -> None:
    picture = ideal(RED_CIRCLE)
    assert not judge(ideal(replace(RED_CIRCLE, colour="purple")), RED_CIRCLE).right
    assert not judge(ideal(replace(RED_CIRCLE, background="green")), RED_CIRCLE).right
    assert not judge(ideal(replace(RED_CIRCLE, shape="star")), RED_CIRCLE).right
    assert not judge(np.roll(picture, 40, axis=1), RED_CIRCLE).right
    assert not judge(np.full_like(picture, 128), RED_CIRCLE).right


def test_the_judge_wants_a_square_rgb_picture() -> None:
    with pytest.raises(ValueError, match="square RGB"):
        judge(np.zeros((64, 128, 3), dtype=np.uint8), RED_CIRCLE)
