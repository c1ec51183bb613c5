"""Samplers on denoisers whose answer is known exactly, in double precision: closed forms, diffusers'
schedulers on every row they share, orders of convergence, moments of what the stochastic ones make.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from atelier import vocabulary
from atelier.contract.errors import UnknownName
from tests.unit.engine.analytic import (
    CENTRES,
    SHAPE,
    SHARES,
    SPREAD,
    Noise,
    gaussian,
    gaussian_flow,
    mixture,
    plan,
    relative,
    run,
    sd_levels,
    start,
)
from workers.engine import samplers
from workers.engine.discretisation import Discretisation
from workers.engine.samplers.dpmpp_sde import Correction, heun_correction, third_order_correction
from workers.engine.samplers.interface import SamplerOptions
from workers.engine.samplers.lms import weights
from workers.engine.samplers.restart import steps_of
from workers.engine.samplers.schedules import ScheduleOptions, karras_ramp, sigmas
from workers.engine.samplers.unipc import coefficients

# numpy remarks on how the library makes its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 20
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ALL = list(samplers.SAMPLERS)
PROBABILITY_FLOW = SamplerOptions(eta=0.0)


@pytest.fixture(scope="module")
def levels() -> Discretisation:
    return sd_levels()


def of_label(label: str, levels: Discretisation, steps: int = STEPS) -> list[float]:
    return sigmas(label, steps, ScheduleOptions(), levels)


def test_every_sampler_of_the_peer_is_there() -> None:
    assert [each.name for each in vocabulary.SAMPLERS] == ALL
    assert all(each.served for each in vocabulary.SAMPLERS)
    with pytest.raises(UnknownName, match="'Euler a'"):
        samplers.find("Euler b")


def test_the_samplers_of_timesteps_are_those_the_vocabulary_names() -> None:
    assert {name for name, each in samplers.SAMPLERS.items() if each.unit} == vocabulary.TIMESTEP_SAMPLERS


# --- diffusers' schedulers, on the rows they share


def with_a_library_scheduler(scheduler: Any, schedule: list[float], timesteps: Any = None) -> torch.Tensor:
    """What a scheduler in sigmas makes of the given noise."""
    x = start(schedule[0])
    places = schedule if timesteps is None else timesteps
    for timestep, sigma in zip(scheduler.timesteps, places, strict=False):
        scheduler.scale_model_input(x, timestep)
        epsilon = (x - mixture(x, float(sigma))) / float(sigma)
        x = scheduler.step(epsilon, timestep, x, return_dict=False)[0].double()
    return x


def at_variance_one(scheduler: Any, asked: list[float], levels: Discretisation) -> torch.Tensor:
    """What a scheduler of training timesteps makes of the given noise, the model being asked at `asked`."""
    x = start(1.0)
    for timestep, sigma in zip(scheduler.timesteps, asked, strict=False):
        scale = math.sqrt(1 + sigma**2)
        epsilon = (x * scale - mixture(x * scale, sigma)) / sigma
        x = scheduler.step(epsilon, timestep, x, return_dict=False)[0].double()
    return x


@pytest.mark.parametrize(("label", "karras"), [("Uniform", False), ("Karras", True)])
def test_euler_agrees_with_the_library_on_the_schedules_they_share(
    label: str, karras: bool, levels: Discretisation
) -> None:
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace", use_karras_sigmas=karras)
    scheduler.set_timesteps(STEPS)
    theirs = [float(sigma) for sigma in scheduler.sigmas]
    expected = with_a_library_scheduler(scheduler, theirs)
    # the library's table is single precision: the grids agree to that, the sampler on one grid far closer
    assert of_label(label, levels) == pytest.approx(theirs, rel=5e-5, abs=1e-9)
    assert relative(run("Euler", theirs).latent, expected) < 1e-5
    assert relative(run("Euler", of_label(label, levels)).latent, expected) < 1e-4


def test_heun_agrees_with_the_library() -> None:
    scheduler = HeunDiscreteScheduler(**BETAS, timestep_spacing="linspace", use_karras_sigmas=True)
    scheduler.set_timesteps(STEPS)
    # every level but the ends stands there twice: as a prediction and as a start
    asked = [float(sigma) for sigma in scheduler.sigmas]
    schedule = [asked[0], *asked[1:-1:2], asked[-1]]
    expected = with_a_library_scheduler(scheduler, asked[:-1])
    assert relative(run("Heun", schedule).latent, expected) < 1e-5


def multistep(schedule: list[float], **kind: Any) -> DPMSolverMultistepScheduler:
    scheduler = DPMSolverMultistepScheduler(
        **BETAS,
        timestep_spacing="linspace",
        use_karras_sigmas=True,
        final_sigmas_type="zero",
        lower_order_final=True,
        **kind,
    )
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = torch.tensor(schedule, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("label", ["Karras", "Uniform"])
def test_dpmpp_2m_agrees_with_the_library_where_the_model_is_asked_at_the_same_sigmas(
    label: str, levels: Discretisation
) -> None:
    schedule = of_label(label, levels)
    scheduler = multistep(schedule, algorithm_type="dpmsolver++", solver_order=2)
    # the library keeps the signal at variance 1: x / sqrt(1 + sigma^2)
    x = start(schedule[0]) / math.sqrt(1 + schedule[0] ** 2)
    for timestep, sigma in zip(scheduler.timesteps, schedule, strict=False):
        scale = math.sqrt(1 + sigma**2)
        epsilon = (x * scale - mixture(x * scale, sigma)) / sigma
        x = scheduler.step(epsilon, timestep, x, return_dict=False)[0].double()
    assert relative(run("DPM++ 2M", schedule).latent, x) < 1e-5


@pytest.mark.parametrize(("name", "kind"), [("DPM++ 2M SDE", "midpoint"), ("DPM++ 2M SDE Heun", "heun")])
def test_dpmpp_2m_sde_agrees_with_the_library_given_the_same_noise(
    name: str, kind: str, levels: Discretisation
) -> None:
    schedule = of_label("Karras", levels)
    scheduler = multistep(schedule, algorithm_type="sde-dpmsolver++", solver_order=2, solver_type=kind)
    between = Noise().brownian(schedule[-2], schedule[0])
    x = start(schedule[0]) / math.sqrt(1 + schedule[0] ** 2)
    for timestep, (sigma, following) in zip(scheduler.timesteps, itertools.pairwise(schedule), strict=True):
        scale = math.sqrt(1 + sigma**2)
        epsilon = (x * scale - mixture(x * scale, sigma)) / sigma
        drawn = between(sigma, following) if following else torch.zeros(SHAPE)
        x = scheduler.step(epsilon, timestep, x, variance_noise=drawn, return_dict=False)[0].double()
    assert relative(run(name, schedule).latent, x) < 1e-5


def test_euler_a_agrees_with_the_library_given_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    scheduler.set_timesteps(STEPS)
    schedule = [float(sigma) for sigma in scheduler.sigmas]
    noise = Noise()
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor",
        lambda shape, **_: noise.step(),
    )
    expected = with_a_library_scheduler(scheduler, schedule)
    assert relative(run("Euler a", schedule).latent, expected) < 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_agrees_with_the_library_but_for_the_last_step_which_the_peer_leaves_out(
    eta: float, levels: Discretisation
) -> None:
    scheduler = DDIMScheduler(
        **BETAS, timestep_spacing="leading", steps_offset=1, clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(STEPS)
    schedule = samplers.find("DDIM").sigmas(plan("Automatic", STEPS, levels))
    noise, x = Noise(), start(1.0)
    for timestep, sigma in list(zip(scheduler.timesteps, schedule, strict=True))[:-1]:
        scale = math.sqrt(1 + sigma**2)
        epsilon = (x * scale - mixture(x * scale, sigma)) / sigma
        x = scheduler.step(epsilon, timestep, x, eta=eta, variance_noise=noise.step(), return_dict=False)[
            0
        ].double()
    begin = samplers.find("DDIM").start(start(1.0), schedule, unit_signal=False)
    found = run("DDIM", schedule, SamplerOptions(eta_ddim=eta), begin=begin)
    assert relative(found.latent, x) < 1e-5
    assert len(found.asked) == STEPS - 1


def test_plms_agrees_with_the_library_on_steps_of_all_its_orders(levels: Discretisation) -> None:
    scheduler = PNDMScheduler(**BETAS, timestep_spacing="leading", steps_offset=1, skip_prk_steps=True)
    scheduler.set_timesteps(STEPS)
    schedule = samplers.find("PLMS").sigmas(plan("Automatic", STEPS, levels))
    # the library repeats the second timestep for what looks one step ahead
    asked = [schedule[0], schedule[1], *schedule[1:]]
    x = at_variance_one(scheduler, asked[:-1], levels)
    begin = samplers.find("PLMS").start(start(1.0), schedule, unit_signal=False)
    assert relative(run("PLMS", schedule, begin=begin).latent, x) < 1e-5


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_agrees_with_the_library(variant: str, levels: Discretisation) -> None:
    scheduler = UniPCMultistepScheduler(
        **BETAS,
        timestep_spacing="linspace",
        solver_order=3,
        solver_type=variant,
        final_sigmas_type="sigma_min",
        lower_order_final=True,
    )
    scheduler.set_timesteps(STEPS)
    options = SamplerOptions(uni_pc_variant=variant)  # type: ignore[arg-type]
    schedule = samplers.find("UniPC").sigmas(plan("Automatic", STEPS, levels, options))
    scheduler.sigmas = torch.tensor(schedule, dtype=torch.float64)
    x = at_variance_one(scheduler, list(schedule), levels)
    begin = samplers.find("UniPC").start(start(1.0), schedule, unit_signal=False)
    assert relative(run("UniPC", schedule, options, begin=begin).latent, x) < 1e-5


# --- closed forms and orders of convergence

ORDERS = {
    "Euler": 1,
    "Euler a": 1,
    "Heun": 2,
    "DPM2": 2,
    "DPM2 a": 2,
    "DPM++ 2M": 2,
    "DPM++ 2S a": 2,
    "DPM++ SDE": 2,
    "DPM++ 2M SDE": 2,
    "DPM++ 2M SDE Heun": 2,
    "DPM++ 3M SDE": 2,
    "LMS": 2,
    "DPM fast": 3,
}
"""Of the probability flow. A multistep method's first steps, which are of lower order, bound it: one Euler
step makes an error of second order.
"""


@pytest.mark.parametrize("name", list(ORDERS))
def test_the_error_falls_with_the_steps_as_the_order_says(name: str) -> None:
    high, low = 8.0, 0.2
    exact = gaussian_flow(start(high), high, low)

    def error(steps: int) -> float:
        found = run(name, karras_ramp(steps + 1, low, high), PROBABILITY_FLOW, denoiser=gaussian)
        return float((found.latent - exact).norm())

    # the fast solver's last step is of second order with these numbers, of first with others
    rate = math.log(error(47) / error(95)) / math.log(95 / 47)
    assert ORDERS[name] - 0.35 < rate, f"order {rate:.2f}"
    assert rate < ORDERS[name] + 1.2, f"order {rate:.2f}: the test no longer tells orders apart"


@pytest.mark.parametrize(
    ("variant", "order", "least"),
    [
        ("bh1", 1, 1.7),
        ("bh2", 1, 1.7),
        ("vary_coeff", 1, 1.7),
        ("bh1", 2, 2.6),
        ("bh2", 2, 2.6),
        ("bh1", 3, 2.6),
        ("bh2", 3, 2.6),
        ("vary_coeff", 3, 0.8),
    ],
)
def test_unipcs_corrector_adds_an_order_to_its_predictor(variant: str, order: int, least: float) -> None:
    high, low = 8.0, 0.2
    exact = gaussian_flow(start(high), high, low) / math.sqrt(1 + low**2)
    options = SamplerOptions(
        uni_pc_variant=variant,  # type: ignore[arg-type]
        uni_pc_order=order,
        uni_pc_lower_order_final=False,
    )

    def error(steps: int) -> float:
        schedule = [high * (low / high) ** (step / steps) for step in range(steps + 1)]
        return float((run("UniPC", schedule, options, denoiser=gaussian).latent - exact).norm())

    assert math.log2(error(40) / error(80)) > least


@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary_coeff"])
@pytest.mark.parametrize("ratios", [[-0.8, -1.7], [-1.0, -2.1, -3.3]])
def test_unipcs_predictor_is_exact_for_polynomials(variant: str, ratios: list[float]) -> None:
    span = -0.37
    found = coefficients(ratios, span, variant, corrects=False)
    for power in range(1, len(ratios) + 1):
        # a denoised latent of s^power over a step of s = 0..1, under the weight of the exponential integrator
        places = torch.linspace(0, 1, 100_001, dtype=torch.float64)
        integral = torch.trapezoid(torch.exp((1 - places) * span) * places**power, places) * span
        ours = sum(share * ratio ** (power - 1) for share, ratio in zip(found, ratios, strict=True))
        assert ours == pytest.approx(float(integral), rel=1e-7)


@pytest.mark.parametrize("correction", [heun_correction, third_order_correction])
def test_the_stochastic_corrections_are_exact_where_the_denoised_changes_linearly(
    correction: Correction,
) -> None:
    step, eta = 0.3, 0.7
    span = step * (1 + eta)
    one = torch.ones(1, dtype=torch.float64)
    # rising by one for each unit of log sigma, seen at uneven places
    history = [(0.4, -0.4 * one), (0.25, -0.65 * one)]
    places = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    integral = torch.trapezoid(torch.exp((places - 1) * span) * places * step, places) * span
    found = correction(span, step, 0.0 * one, history)
    assert found is not None
    assert float(found) == pytest.approx(float(integral), rel=1e-7)


@pytest.mark.parametrize("name", ["DDIM", "PLMS"])
def test_the_samplers_of_timesteps_follow_the_flow_to_the_level_they_end_at(
    name: str, levels: Discretisation
) -> None:
    schedule = samplers.find(name).sigmas(plan("Automatic", 100, levels))
    begin = samplers.find(name).start(start(1.0), schedule, unit_signal=False)
    exact = gaussian_flow(begin, schedule[0], schedule[-1]) / math.sqrt(1 + schedule[-1] ** 2)
    found = relative(run(name, schedule, denoiser=gaussian, begin=begin).latent, exact)
    assert found < {"DDIM": 2e-2, "PLMS": 2e-3}[name]


def test_plms_is_closer_than_ddim(levels: Discretisation) -> None:
    schedule = samplers.find("DDIM").sigmas(plan("Automatic", 50, levels))
    exact = gaussian_flow(start(14.0), schedule[0], schedule[-1]) / math.sqrt(1 + schedule[-1] ** 2)
    errors = [
        relative(run(name, schedule, denoiser=gaussian, begin=start(14.0)).latent, exact)
        for name in ("DDIM", "PLMS")
    ]
    assert errors[1] < errors[0] / 4


def test_the_adaptive_solver_keeps_its_tolerance_with_few_evaluations(levels: Discretisation) -> None:
    schedule = samplers.find("DPM adaptive").sigmas(plan("Karras", 10, levels))
    found = run("DPM adaptive", schedule, PROBABILITY_FLOW, denoiser=gaussian)
    assert relative(found.latent, gaussian_flow(start(schedule[0]), schedule[0], schedule[-1])) < 0.05
    assert 10 < len(found.asked) < 100


def test_the_adaptive_solver_ends_with_a_network_that_is_broken_or_wild(levels: Discretisation) -> None:
    schedule = samplers.find("DPM adaptive").sigmas(plan("Karras", 10, levels))
    broken = run("DPM adaptive", schedule, denoiser=lambda x, sigma: x * math.nan)
    assert len(broken.asked) == 3
    wild = run("DPM adaptive", schedule, denoiser=lambda x, sigma: x * 0 + 1e4 * math.sin(1e6 * sigma))
    assert len(wild.asked) < 20_000
    assert bool(torch.isfinite(wild.latent).all())


def test_what_lies_between_the_ends_is_nothing_to_the_adaptive_solver(levels: Discretisation) -> None:
    few, many = (samplers.find("DPM adaptive").sigmas(plan("Karras", n, levels)) for n in (5, 50))
    assert torch.equal(run("DPM adaptive", few).latent, run("DPM adaptive", many).latent)


@pytest.mark.parametrize("ends", [(5.0, 3.0), (3.0, 0.0)])
def test_multistep_weights_integrate_every_cubic_exactly(ends: tuple[float, float]) -> None:
    points = [5.0, 7.5, 8.0, 12.0]
    found = weights(points, *ends)
    for power in range(4):
        exact = (ends[1] ** (power + 1) - ends[0] ** (power + 1)) / (power + 1)
        assert sum(w * p**power for w, p in zip(found, points, strict=True)) == pytest.approx(exact)


WITHOUT_NOISE_THE_SAME = [
    ("Euler a", "Euler"),
    ("DPM2 a", "DPM2"),
    ("DPM++ 2S a", "DPM++ SDE"),
    ("DPM++ 2M SDE", "DPM++ 2M"),
]


@pytest.mark.parametrize(("name", "other"), WITHOUT_NOISE_THE_SAME)
def test_without_noise_a_stochastic_sampler_is_the_plain_one(
    name: str, other: str, levels: Discretisation
) -> None:
    schedule = of_label("Karras", levels)
    plain = run(other, schedule, PROBABILITY_FLOW).latent
    difference = relative(run(name, schedule, PROBABILITY_FLOW).latent, plain)
    # singlestep and ancestral solvers differ in where they take the middle; multistep ones in nothing
    assert difference < (2e-2 if "2S" in name else 1e-9)


# --- what the samplers make


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("LCM", "DDIM CFG++")])
def test_samples_have_the_moments_of_what_was_learned(name: str, levels: Discretisation) -> None:
    sampler = samplers.find(name)
    options = SamplerOptions(levels=levels)
    label = vocabulary.find_sampler(name)[0].scheduler
    schedule = sampler.sigmas(plan(label, 60, levels, options))
    begin = sampler.start(start(1.0, (4, 40, 40)), schedule, unit_signal=False)
    made = run(name, schedule, options, begin=begin).latent
    mean = float((SHARES * CENTRES).sum())
    deviation = math.sqrt(float((SHARES * (CENTRES - mean) ** 2).sum()) + SPREAD**2)
    assert float(made.mean()) == pytest.approx(mean, abs=0.05)
    assert float(made.std()) == pytest.approx(deviation, abs=0.05)
    near = float(((made.unsqueeze(-1) - CENTRES).abs().min(-1).values < 3 * SPREAD).double().mean())
    assert near > 0.98


def test_latent_consistency_jumps_to_the_denoised_and_back_up(levels: Discretisation) -> None:
    options = SamplerOptions(levels=levels)
    schedule = samplers.find("LCM").sigmas(plan("Automatic", 4, levels, options))
    distilled = [levels.sigmas[timestep] for timestep in range(19, 1000, 20)]
    assert schedule == pytest.approx([distilled[-1], *schedule[1:3], distilled[0], 0.0])
    found = run("LCM", schedule, options, denoiser=lambda x, sigma: torch.full_like(x, 0.5))
    assert all(any(sigma == each for each in distilled) for sigma in found.asked)
    assert relative(found.latent, torch.full(SHAPE, 0.5, dtype=torch.float64)) < 1e-3


def test_latent_consistency_takes_the_noise_seen_at_the_nearest_timestep_from_the_latent_itself(
    levels: Discretisation,
) -> None:
    between = levels.sigma_at(890.0)
    options, begin = SamplerOptions(levels=levels), start(between)
    noise = torch.full(SHAPE, 0.25, dtype=torch.float64)
    found = run("LCM", [between, 0.0], options, denoiser=lambda x, sigma: x - sigma * noise, begin=begin)
    # 879 and 899 are the timesteps around
    assert found.asked == [pytest.approx(levels.sigmas[899])]
    assert relative(found.latent, begin - between * noise) < 1e-4


def test_cfgpp_goes_to_the_guided_and_back_along_the_negative_prompts_noise() -> None:
    views = {"guided": 2.5, "uncond": 0.5}
    found = run(
        "DDIM CFG++",
        [4.0, 1.0],
        denoiser=lambda x, sigma: torch.full_like(x, views["guided"]),
        uncond=lambda x, sigma: torch.full_like(x, views["uncond"]),
    )
    at_a_share = 0.5 + (2.5 - 0.5) / 12.5
    back = (start(4.0) - 0.5) / 4.0 * 1.0
    assert relative(found.latent, (at_a_share + back) / math.sqrt(2.0)) < 1e-12
    assert samplers.find("DDIM CFG++").needs_uncond


def test_cfgpp_without_guidance_is_ddim(levels: Discretisation) -> None:
    schedule = samplers.find("DDIM").sigmas(plan("Automatic", 10, levels))
    plain = run("DDIM", schedule).latent
    assert relative(run("DDIM CFG++", schedule).latent, plain) < 1e-12


# --- restarts


def test_below_twenty_steps_restart_is_heun(levels: Discretisation) -> None:
    schedule = of_label("Karras", levels, 19)
    assert torch.equal(run("Restart", schedule).latent, run("Heun", schedule).latent)


@pytest.mark.parametrize(("steps", "kept", "times"), [(20, 9, 1), (35, 9, 1), (36, 9, 2), (50, 12, 2)])
def test_restarts_go_back_from_near_a_tenth_to_near_two(
    steps: int, kept: int, times: int, levels: Discretisation
) -> None:
    found = steps_of(of_label("Karras", levels, steps))
    assert len(found) == steps
    back = [(before[1], after[0]) for before, after in itertools.pairwise(found) if after[0] > before[1]]
    assert len(back) == times
    main = [*karras_ramp(steps - kept * times, levels.sigmas[0], levels.sigmas[-1]), 0.0]
    nearest = [min(main, key=lambda each, to=to: abs(each - to)) for to in (0.1, 2.0)]
    assert back == [pytest.approx(nearest)] * times
    assert found[0][0] == pytest.approx(levels.sigmas[-1]) and found[-1][1] == 0.0


def test_a_restart_adds_the_noise_between_its_levels(levels: Discretisation) -> None:
    schedule = of_label("Karras", levels, 40)
    assert run("Restart", schedule).noise.drawn == 2
    assert relative(run("Restart", schedule).latent, run("Heun", schedule).latent) > 1e-3


# --- options


def test_churn_adds_noise_only_between_its_bounds(levels: Discretisation) -> None:
    schedule = of_label("Karras", levels)
    for name in ("Euler", "Heun", "DPM2"):
        plain = run(name, schedule).latent
        outside = run(name, schedule, SamplerOptions(s_churn=5, s_tmin=1000.0)).latent
        inside = run(name, schedule, SamplerOptions(s_churn=5, s_tmin=0.1, s_tmax=10.0)).latent
        assert relative(outside, plain) < 1e-12
        assert relative(inside, plain) > 1e-3


@pytest.mark.parametrize("each", vocabulary.SAMPLERS, ids=lambda each: each.name)
def test_a_sampler_heeds_the_options_it_is_said_to_use_and_no_other(
    each: vocabulary.Sampler, levels: Discretisation
) -> None:
    changed = {
        "eta": {"eta": 0.5, "eta_ddim": 0.5},
        "s_churn": {"s_churn": 4.0},
        "s_tmin": {"s_churn": 4.0, "s_tmin": 0.5},
        "s_tmax": {"s_churn": 4.0, "s_tmax": 5.0},
        "s_noise": {"s_churn": 4.0, "s_noise": 0.9},
    }
    schedule = samplers.find(each.name).sigmas(plan("Automatic", 8, levels))
    churn = {"s_churn": 4.0} if "s_churn" in each.uses else {}
    for option, values in changed.items():
        base = SamplerOptions(
            levels=levels, **(churn if option.startswith("s_t") or option == "s_noise" else {})
        )
        other = SamplerOptions(levels=levels, **values)  # type: ignore[arg-type]
        differs = not torch.equal(
            run(each.name, schedule, base).latent, run(each.name, schedule, other).latent
        )
        assert differs == (option in each.uses), option


@pytest.mark.parametrize("name", [name for name in ALL if name != "DPM adaptive"])
@pytest.mark.parametrize("steps", [2, 10, 24])
def test_as_many_evaluations_as_are_foretold(name: str, steps: int, levels: Discretisation) -> None:
    sampler = samplers.find(name)
    options = SamplerOptions(levels=levels)
    schedule = sampler.sigmas(plan("Automatic", steps, levels, options))
    assert len(run(name, schedule, options).asked) == sampler.evaluations(schedule)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_give_finite_numbers(name: str, steps: int, levels: Discretisation) -> None:
    sampler = samplers.find(name)
    options = SamplerOptions(levels=levels)
    for label in ("Automatic", "KL Optimal"):
        schedule = sampler.sigmas(plan(label, steps, levels, options))
        found = run(name, schedule, options)
        assert bool(torch.isfinite(found.latent).all())
        assert len(found.asked) >= 1
