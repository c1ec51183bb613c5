"""A picture's own noise: the published numbers of CUDA's generator, variation, resizing, Brownian paths."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from workers.engine.noise.brownian import tree_over
from workers.engine.noise.philox import PhiloxGenerator
from workers.engine.noise.sources import NoisePlan, PictureNoise, of_seeds, slerp

FIRST_DRAW = [
    [-0.92466241, -0.42534396, -2.64384580, 0.14518388],
    [-0.12086651, -0.57972568, -0.62285122, -0.32838714],
    [-1.07454205, -0.36314410, -1.67105043, 2.26550508],
]
SHAPE = (4, 8, 8)


def test_the_first_draw_of_seed_0_is_the_published_one() -> None:
    assert PhiloxGenerator(0).normal((3, 4)) == pytest.approx(np.array(FIRST_DRAW), abs=1e-6)


def test_the_second_draw_moves_the_offset_by_one_whatever_the_size() -> None:
    generator = PhiloxGenerator(0)
    generator.normal((2, 2))
    expected = [[0.18082589, -0.55226272], [0.92381340, -0.73497033]]
    assert generator.normal((2, 2)) == pytest.approx(np.array(expected), abs=1e-6)


def test_seed_1_begins_with_the_published_numbers() -> None:
    assert PhiloxGenerator(1).normal((3,)) == pytest.approx([-0.29627782, 2.676448, -0.1408464], abs=1e-6)


def test_gpu_and_nv_are_the_same_numbers_and_cpu_is_torchs() -> None:
    gpu, nv, cpu = (PictureNoise(NoisePlan(source, 7, SHAPE)).first() for source in ("GPU", "NV", "CPU"))
    assert torch.equal(gpu, nv)
    assert torch.equal(cpu, torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)))
    assert not torch.equal(gpu, cpu)


def test_normal_numbers_have_mean_0_and_deviation_1() -> None:
    drawn = PhiloxGenerator(3).normal((200, 200))
    assert abs(float(drawn.mean())) < 0.02
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.02)


def test_large_seeds_use_all_64_bits() -> None:
    assert not np.array_equal(PhiloxGenerator(5).normal((8,)), PhiloxGenerator(5 + 2**32).normal((8,)))


def test_variation_goes_from_the_seeds_noise_to_the_subseeds() -> None:
    def noise(seed: int, subseed: int, strength: float) -> torch.Tensor:
        return PictureNoise(NoisePlan("CPU", seed, SHAPE, subseed, strength)).first()

    own, other = noise(1, 0, 0.0), noise(2, 0, 0.0)
    assert torch.allclose(noise(1, 2, 1.0), other, atol=1e-5)
    half = noise(1, 2, 0.5)
    assert not torch.allclose(half, own, atol=0.1)
    assert torch.allclose(slerp(0.0, own, other), own, atol=1e-5)


def test_a_resized_seed_keeps_its_noise_in_the_middle() -> None:
    large = PictureNoise(NoisePlan("CPU", 1, (4, 12, 16), resize_from=SHAPE)).first()
    small = PictureNoise(NoisePlan("CPU", 1, SHAPE)).first()
    assert torch.equal(large[:, 2:10, 4:12], small)


def test_the_seed_delta_changes_the_steps_noise_alone() -> None:
    plain, delayed = (PictureNoise(NoisePlan("CPU", 1, SHAPE, seed_delta=delta)) for delta in (0, 31337))
    assert torch.equal(plain.first(), delayed.first())
    assert not torch.equal(plain.step(), delayed.step())


def test_each_pictures_stream_is_its_own() -> None:
    one, other = (PictureNoise(NoisePlan("NV", 5, SHAPE)) for _ in range(2))
    one.first()
    one.step()
    other.first()
    assert torch.equal(
        PictureNoise(NoisePlan("NV", 5, SHAPE)).first(), PictureNoise(NoisePlan("NV", 5, SHAPE)).first()
    )
    assert other.step().shape == SHAPE


RECORDED_PATHS = {
    (1234, 0.03, 14.6): [
        (14.6, 5.25, [-0.32948, -0.11897, -0.01612, 0.69752]),
        (5.25, 1.7, [-0.57871, 0.90898, 0.08746, 0.89849]),
        (1.7, 0.125, [-0.3118, -0.43426, 0.22056, 3.15912]),
    ],
    (2**40 + 7, 0.1, 10.0): [
        (10.0, 5.25, [1.27131, -0.31361, 2.81326, 0.40226]),
        (5.25, 1.7, [-1.49576, -1.88251, -1.76856, 0.61947]),
        (1.7, 0.125, [0.50768, 1.35469, -1.36783, -0.05446]),
    ],
}
"""Increments of the tree the peer uses, by (seed, lowest, highest level)."""


@pytest.mark.parametrize("path", list(RECORDED_PATHS))
def test_a_brownian_path_is_that_of_the_peers_tree(path: tuple[int, float, float]) -> None:
    seed, low, high = path
    between = PictureNoise(NoisePlan("CPU", seed, (1, 2, 2))).brownian(low, high)
    for sigma, following, expected in RECORDED_PATHS[path]:
        assert between(sigma, following).flatten().tolist() == pytest.approx(expected, abs=2e-5)


def test_increments_of_a_path_add_up_whatever_was_asked_before() -> None:
    points = [14.0, 9.3, 4.4, 4.39, 1.0, 0.2, 0.05]
    forth, back = (PictureNoise(NoisePlan("NV", 3, SHAPE)).brownian(0.03, 14.6) for _ in range(2))
    ahead = [forth(high, low) * (high - low) ** 0.5 for high, low in itertools.pairwise(points)]
    reverse = [
        back(high, low) * (high - low) ** 0.5 for high, low in reversed(list(itertools.pairwise(points)))
    ]
    whole = back(points[0], points[-1]) * (points[0] - points[-1]) ** 0.5
    assert torch.allclose(torch.stack(ahead).sum(0), whole, atol=1e-4)
    for one, other in zip(ahead, reversed(reverse), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_increments_have_unit_variance_and_are_independent() -> None:
    between = PictureNoise(NoisePlan("CPU", 8, (4, 64, 64))).brownian(0.03, 14.6)
    drawn = [between(high, low) for high, low in ((14.6, 7.0), (7.0, 6.9), (6.9, 0.5), (0.5, 0.03))]
    for place, increment in enumerate(drawn):
        assert float(increment.std()) == pytest.approx(1.0, abs=0.03)
        for other in drawn[:place]:
            assert abs(float((increment * other).mean())) < 0.03


def test_a_path_is_the_seeds_alone() -> None:
    def noise(**changes: Any) -> torch.Tensor:
        return PictureNoise(NoisePlan(**{"source": "NV", "seed": 5, "shape": SHAPE} | changes)).brownian(
            0.03, 14.6
        )(7.0, 3.0)

    assert torch.equal(noise(), noise(subseed=9, subseed_strength=0.5, seed_delta=31337))
    assert not torch.allclose(noise(), noise(seed=6), atol=0.1)
    assert not torch.allclose(noise(), noise(source="CPU"), atol=0.1)


def test_beyond_its_ends_a_path_stands_still() -> None:
    tree = tree_over(1, 1.0, 2.0, lambda seeds: of_seeds("CPU", seeds, (3,)))
    assert torch.equal(tree.at(0.5), torch.zeros(3))
    assert torch.equal(tree.at(2.5), tree.at(2.0))


def test_a_path_over_the_whole_schedule_serves_a_picture_that_goes_through_its_end() -> None:
    whole = PictureNoise(NoisePlan("CPU", 5, SHAPE)).brownian(0.03, 14.6)
    part = PictureNoise(NoisePlan("CPU", 5, SHAPE), span=(0.03, 14.6)).brownian(0.03, 6.0)
    assert torch.equal(whole(6.0, 3.0), part(6.0, 3.0))
