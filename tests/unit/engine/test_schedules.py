"""Noise schedules: closed forms, published tables, bounds; the beta distribution they need; a model's
levels.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from atelier import vocabulary
from atelier.contract.errors import InvalidRequest, UnknownName
from tests.unit.engine.analytic import plan, sd_levels
from workers.engine import samplers
from workers.engine.discretisation import LAST_ALPHA, Discretisation, zero_terminal_snr
from workers.engine.samplers.beta import cumulative, quantile
from workers.engine.samplers.interface import SamplerOptions
from workers.engine.samplers.schedules import ALIGNED, ALIGNED_SDXL, SCHEDULES, ScheduleOptions, sigmas

LABELS = list(SCHEDULES)


@pytest.fixture(scope="module")
def levels() -> Discretisation:
    return sd_levels()


def test_every_schedule_of_the_peer_is_there() -> None:
    assert [each.label for each in vocabulary.SCHEDULERS] == LABELS
    assert all(each.served for each in vocabulary.SCHEDULERS)


@pytest.mark.parametrize("steps", [1, 2, 7, 11, 150])
@pytest.mark.parametrize("label", LABELS)
def test_a_schedule_falls_from_its_highest_sigma_to_its_end(
    label: str, steps: int, levels: Discretisation
) -> None:
    found = sigmas(label, steps, ScheduleOptions(), levels)
    ddims = len(range(1, 1000, 1000 // steps))
    assert len(found) == (ddims if label == "DDIM" else steps) + 1
    if label != "DDIM":
        assert found[0] == pytest.approx(levels.sigmas[-1], rel=1e-4)
    assert found[-1] == (pytest.approx(levels.sigmas[0]) if label == "KL Optimal" else 0.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(found))


@pytest.mark.parametrize("label", LABELS)
def test_a_sigma_left_out_is_the_next_to_last_of_a_longer_schedule(
    label: str, levels: Discretisation
) -> None:
    longer = sigmas(label, 11, ScheduleOptions(), levels)
    found = sigmas(label, 10, ScheduleOptions(discard_next_to_last=True), levels)
    assert found == [*longer[:-2], longer[-1]]


def test_samplers_that_leave_it_out_by_themselves_do_so(levels: Discretisation) -> None:
    discarded = sigmas("Karras", 10, ScheduleOptions(discard_next_to_last=True), levels)
    assert list(samplers.find("DPM2").sigmas(plan("Karras", 10, levels))) == discarded
    assert list(samplers.find("Heun").sigmas(plan("Karras", 10, levels))) != discarded


def test_closed_forms_of_the_schedules_between_bounds(levels: Discretisation) -> None:
    bounds = ScheduleOptions(sigma_min=0.25, sigma_max=16.0)
    assert sigmas("Exponential", 7, bounds, levels) == pytest.approx([16, 8, 4, 2, 1, 0.5, 0.25, 0])
    assert sigmas("Polyexponential", 7, bounds, levels) == pytest.approx(
        sigmas("Exponential", 7, bounds, levels)
    )
    square = ScheduleOptions(sigma_min=0.25, sigma_max=16.0, rho=2.0)
    assert sigmas("Polyexponential", 3, square, levels) == pytest.approx([16, 0.25 * 64**0.25, 0.25, 0])
    assert sigmas("Karras", 3, square, levels) == pytest.approx([16, 2.25**2, 0.25, 0])
    arcs = sigmas("KL Optimal", 2, bounds, levels)
    assert arcs == pytest.approx([16, math.tan((math.atan(16) + math.atan(0.25)) / 2), 0.25])
    flat = ScheduleOptions(sigma_min=0.25, sigma_max=16.0, beta_alpha=1.0, beta_beta=1.0)
    assert sigmas("Beta", 4, flat, levels) == pytest.approx([16, 10.75, 5.5, 0.25, 0])


def test_schedules_by_timestep_take_the_models_levels(levels: Discretisation) -> None:
    assert sigmas("Uniform", 4, ScheduleOptions(), levels)[:-1] == pytest.approx(
        [levels.sigmas[t] for t in (999, 666, 333, 0)]
    )
    assert sigmas("Normal", 4, ScheduleOptions(), levels) == pytest.approx(
        sigmas("Uniform", 4, ScheduleOptions(), levels)
    )
    assert sigmas("SGM Uniform", 3, ScheduleOptions(), levels)[:-1] == pytest.approx(
        [levels.sigmas[t] for t in (999, 666, 333)]
    )
    assert sigmas("Simple", 4, ScheduleOptions(), levels)[:-1] == [
        levels.sigmas[t] for t in (999, 749, 499, 249)
    ]
    assert sigmas("DDIM", 4, ScheduleOptions(), levels)[:-1] == [levels.sigmas[t] for t in (751, 501, 251, 1)]


def test_align_your_steps_is_the_published_table_of_the_family(levels: Discretisation) -> None:
    assert sigmas("Align Your Steps", 11, ScheduleOptions(), levels) == [*ALIGNED, 0.0]
    assert sigmas("Align Your Steps", 11, ScheduleOptions(sdxl=True), levels) == [*ALIGNED_SDXL, 0.0]
    between = sigmas("Align Your Steps", 21, ScheduleOptions(), levels)
    assert between[:-1:2] == pytest.approx(ALIGNED)
    assert between[1] == pytest.approx(math.sqrt(ALIGNED[0] * ALIGNED[1]))


def test_a_schedule_that_is_not_there_or_makes_no_sense_is_refused(levels: Discretisation) -> None:
    with pytest.raises(UnknownName, match="'Karras'"):
        sigmas("Karas", 5, ScheduleOptions(), levels)
    senseless = (
        ScheduleOptions(sigma_min=-1.0),
        ScheduleOptions(rho=1e-9),
        ScheduleOptions(sigma_min=5.0, sigma_max=1.0),
    )
    for options in senseless:
        with pytest.raises(InvalidRequest, match="Set them to 0"):
            sigmas("Karras", 5, options, levels)


@pytest.mark.parametrize("x", [0.001, 0.1, 0.3, 0.5, 0.77, 0.999])
def test_the_beta_distribution_is_the_known_one_where_it_has_a_closed_form(x: float) -> None:
    assert cumulative(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)), abs=1e-14)
    assert cumulative(x, 1, 1) == pytest.approx(x, abs=1e-14)
    assert cumulative(x, 2, 3) == pytest.approx(6 * x**2 - 8 * x**3 + 3 * x**4, abs=1e-14)
    assert cumulative(x, 0.6, 2.5) == pytest.approx(1 - cumulative(1 - x, 2.5, 0.6), abs=1e-14)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (3.0, 0.4), (0.1, 8.0), (40.0, 60.0)])
def test_a_quantile_is_the_inverse(a: float, b: float) -> None:
    assert (quantile(0.0, a, b), quantile(1.0, a, b)) == (0.0, 1.0)
    for share in (1e-6, 0.01, 0.3, 0.5, 0.9, 0.99):
        assert cumulative(quantile(share, a, b), a, b) == pytest.approx(share, abs=1e-10)


def test_a_sigma_and_its_timestep_lead_back_to_each_other(levels: Discretisation) -> None:
    for timestep in (0.0, 0.5, 17.25, 998.75):
        assert levels.timestep(levels.sigma_at(timestep)) == pytest.approx(timestep, abs=1e-6)


def test_every_nth_level_keeps_the_last(levels: Discretisation) -> None:
    distilled = levels.every(20)
    assert distilled.sigmas == [levels.sigmas[timestep] for timestep in range(19, 1000, 20)]
    assert distilled.nearest(levels.sigmas[999]) == 49
    assert distilled.nearest(levels.sigmas[0]) == 0


def test_zero_terminal_snr_takes_the_last_signal_and_leaves_the_first() -> None:
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    shifted = zero_terminal_snr(alphas)
    assert float(shifted[0]) == pytest.approx(float(alphas[0]))
    assert float(shifted[-1]) == LAST_ALPHA
    assert bool((shifted[1:] < shifted[:-1]).all())
    roots, plain = shifted.sqrt(), alphas.sqrt()
    # but for the end the roots are shifted and stretched: their differences stay in proportion
    ratio = (roots[:-2] - roots[1:-1]) / (plain[:-2] - plain[1:-1])
    assert float(ratio.max() - ratio.min()) < 1e-9
    assert Discretisation(shifted).sigmas[-1] == pytest.approx(4518.76, rel=1e-4)


TIMESTEPS = ("DDIM", "DDIM CFG++", "PLMS")


@pytest.mark.parametrize("name", TIMESTEPS)
@pytest.mark.parametrize("label", ["Automatic", "Karras"])
def test_samplers_of_timesteps_take_the_peers_timesteps_whatever_the_schedule(
    name: str, label: str, levels: Discretisation
) -> None:
    found = samplers.find(name).sigmas(plan(label, 10, levels))
    assert list(found) == [levels.sigmas[timestep] for timestep in range(901, 0, -100)]


def test_where_steps_do_not_divide_the_timesteps_there_is_one_more(levels: Discretisation) -> None:
    found = samplers.find("DDIM").sigmas(plan("Automatic", 7, levels))
    assert list(found) == [levels.sigmas[timestep] for timestep in range(995, 0, -142)]


def test_ddim_has_something_to_do_with_a_single_step(levels: Discretisation) -> None:
    assert samplers.find("DDIM").sigmas(plan("Automatic", 1, levels)) == (
        levels.sigmas[999],
        levels.sigmas[1],
    )


@pytest.mark.parametrize("skip", ["time_uniform", "time_quadratic", "logSNR"])
def test_unipc_spaces_its_levels_as_the_option_says(skip: str, levels: Discretisation) -> None:
    options = SamplerOptions(uni_pc_skip_type=skip)  # type: ignore[arg-type]
    found = samplers.find("UniPC").sigmas(plan("Karras", 10, levels, options))
    assert len(found) == 11
    assert (found[0], found[-1]) == pytest.approx((levels.sigmas[999], levels.sigmas[0]))
    places = {
        "time_uniform": [levels.timestep(sigma) + 1 for sigma in found],
        "time_quadratic": [math.sqrt(levels.timestep(sigma) + 1) for sigma in found],
        "logSNR": [math.log(sigma) for sigma in found],
    }[skip]
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 10, rel=0.01)


def test_the_solvers_of_the_whole_range_end_at_the_models_lowest_level(levels: Discretisation) -> None:
    for label in ("Automatic", "SGM Uniform", "KL Optimal"):
        found = samplers.find("DPM fast").sigmas(plan(label, 10, levels))
        assert len(found) == 11
        assert (found[0], found[-1]) == (levels.sigmas[-1], levels.sigmas[0])


def test_a_latent_is_noised_to_the_level_its_sampling_begins_at(levels: Discretisation) -> None:
    latent, noise = torch.full((1, 2, 2), 3.0), torch.ones(1, 2, 2)
    whole = sigmas("Karras", 10, ScheduleOptions(), levels)
    begun, left = samplers.find("DPM++ 2M").resume(latent, noise, plan("Karras", 10, levels), 5)
    assert list(left) == whole[4:]
    assert torch.allclose(begun, latent + whole[4])


def test_a_latent_for_ddim_is_noised_one_timestep_above_its_first(levels: Discretisation) -> None:
    latent, noise = torch.full((1, 2, 2), 3.0), torch.ones(1, 2, 2)
    begun, left = samplers.find("DDIM").resume(latent, noise, plan("Automatic", 10, levels), 5)
    assert list(left) == [levels.sigmas[timestep] for timestep in (401, 301, 201, 101, 1)]
    level = levels.sigmas[501]
    unit = (latent + level) / math.sqrt(1 + level**2)
    assert torch.allclose(begun, unit * math.sqrt(1 + left[0] ** 2))


@pytest.mark.parametrize("name", list(samplers.SAMPLERS))
@pytest.mark.parametrize("encoded", [0, 1, 9])
def test_there_is_always_something_left_to_do_for_a_latent(
    name: str, encoded: int, levels: Discretisation
) -> None:
    latent = torch.zeros(1, 2, 2)
    _, left = samplers.find(name).resume(latent, latent, plan("Automatic", 10, levels), encoded)
    assert len(left) >= 2
    assert all(math.isfinite(sigma) and sigma > 0 for sigma in left[:-1])


def test_what_a_picture_starts_from_is_as_loud_as_its_sampler_takes_it(levels: Discretisation) -> None:
    noise = torch.ones(1, 2, 2)
    start = samplers.find("Euler").start
    assert torch.allclose(start(noise, (12.0, 0.0), unit_signal=False), noise * 12.0)
    assert torch.allclose(start(noise, (12.0, 0.0), unit_signal=True), noise * math.sqrt(145.0))
    assert torch.allclose(
        samplers.find("DDIM").start(noise, (12.0, 1.0), unit_signal=False), noise * math.sqrt(145.0)
    )
