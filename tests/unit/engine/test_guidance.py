"""Guidance: what is asked of the network for one denoised latent, and how the answers are combined."""

from __future__ import annotations

import pytest
import torch

from workers.engine.denoise.guidance import (
    Conditioned,
    Guidance,
    Padding,
    Prompt,
    Switch,
    WithoutNegative,
    guided,
)
from workers.engine.denoise.prediction import Prediction
from workers.engine.discretisation import Discretisation
from workers.engine.rows import Context
from workers.engine.samplers.interface import Ask, Sampling

LEVELS = Discretisation(torch.linspace(0.999, 0.01, 1000, dtype=torch.float64))
X = torch.arange(4.0).reshape(1, 2, 2)
SIGMA = 2.0


def context(value: float, chunks: int = 1) -> Context:
    return Context(torch.full((77 * chunks, 3), value))


def conditioned(*prompts: Prompt, negative: Context | None = None, weights: str = "base") -> Conditioned:
    against = negative or context(0.0)
    return Conditioned(
        weights, Prediction(LEVELS), lambda _: prompts, lambda _: against, lambda: context(9.0)
    )


def outputs(guidance: Guidance, *values: float, evaluation: int = 0) -> torch.Tensor:
    """The guided latent where row i of the network answers so that its denoised latent is values[i]."""
    asked = guidance.at(evaluation, SIGMA)
    assert len(asked.rows(X, SIGMA)) == len(values)
    answers = [(X - value) / SIGMA for value in values]
    return asked.combine(X, SIGMA, answers).denoised


def test_guidance_goes_from_the_negative_prompt_beyond_the_prompt() -> None:
    guidance = Guidance(conditioned(Prompt(context(1.0), 1.0)), scale=3.0)
    assert torch.allclose(outputs(guidance, 5.0, 1.0), torch.full_like(X, 1.0 + 3.0 * 4.0))


def test_a_composition_adds_every_parts_weighted_step() -> None:
    guidance = Guidance(conditioned(Prompt(context(1.0), 1.5), Prompt(context(2.0), -0.5)), scale=2.0)
    expected = 1.0 + 1.5 * 2.0 * (5.0 - 1.0) - 0.5 * 2.0 * (3.0 - 1.0)
    assert torch.allclose(outputs(guidance, 5.0, 3.0, 1.0), torch.full_like(X, expected))


def test_at_scale_1_the_negative_prompt_is_not_asked_unless_the_sampler_wants_it() -> None:
    plain = conditioned(Prompt(context(1.0), 1.0))
    assert len(Guidance(plain, scale=1.0).at(0, SIGMA).rows(X, SIGMA)) == 1
    assert len(Guidance(plain, scale=1.0, both=True).at(0, SIGMA).rows(X, SIGMA)) == 2


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        (WithoutNegative(), []),
        (WithoutNegative(early=0.5), [0, 1, 2]),
        (WithoutNegative(sigma=2.5), [1, 3]),
        (WithoutNegative(sigma=2.5, every=True), [0, 1, 2, 3]),
        (WithoutNegative(sigma=1.5, every=True), []),
        (WithoutNegative(early=0.2, sigma=2.5), [0, 1, 3]),
    ],
)
def test_the_negative_prompt_is_left_out_where_the_options_say(
    rule: WithoutNegative, left_out: list[int]
) -> None:
    guidance = Guidance(
        conditioned(Prompt(context(1.0), 1.0)), scale=3.0, evaluations=4, without_negative=rule
    )
    asked = [guidance.at(evaluation, SIGMA) for evaluation in range(4)]
    assert [number for number, each in enumerate(asked) if each.negative is None] == left_out


def test_without_it_the_first_prompt_is_what_compositions_start_from() -> None:
    guidance = Guidance(
        conditioned(Prompt(context(1.0), 1.0), Prompt(context(2.0), 0.5)),
        scale=7.0,
        evaluations=4,
        without_negative=WithoutNegative(early=1.0),
    )
    assert torch.allclose(outputs(guidance, 5.0, 3.0), torch.full_like(X, 5.0 + 0.5 * (3.0 - 5.0)))


def test_the_switch_is_where_the_share_of_the_noise_levels_is_passed() -> None:
    refiner = conditioned(Prompt(context(1.0), 1.0), weights="refiner")
    base = conditioned(Prompt(context(1.0), 1.0))
    guidance = Guidance(base, scale=3.0, evaluations=10, switch=Switch(refiner, 0.8))
    # the training timesteps run from 999 to 0: (999 - timestep) / 1000 >= 0.8 from timestep 199 on
    used = {t: guidance.at(0, LEVELS.sigmas[t]).used.weights for t in (999, 500, 200, 199, 0)}
    assert used == {999: "base", 500: "base", 200: "base", 199: "refiner", 0: "refiner"}


def test_by_evaluations_it_is_where_their_share_is_passed() -> None:
    refiner = conditioned(Prompt(context(1.0), 1.0), weights="refiner")
    base = conditioned(Prompt(context(1.0), 1.0))
    guidance = Guidance(base, scale=3.0, evaluations=10, switch=Switch(refiner, 0.8, by_evaluations=True))
    assert [guidance.at(n, SIGMA).used.weights for n in (7, 8)] == ["base", "refiner"]


def test_parts_of_a_composition_go_on_with_their_last_vector() -> None:
    long, short = context(1.0, 2), context(2.0)
    asked = Guidance(conditioned(Prompt(long, 1.0), Prompt(short, 1.0)), scale=3.0).at(0, SIGMA)
    assert [each.context.tokens for each in asked.prompts] == [154, 154]
    assert bool((asked.prompts[1].context.tensor == 2.0).all())


@pytest.mark.parametrize(
    ("padding", "lengths", "filled"),
    [
        (Padding.NONE, (77, 154), None),
        (Padding.EMPTY_CHUNKS, (154, 154), 9.0),
        (Padding.NEGATIVE_TO_PROMPT, (77, 77), None),
    ],
)
def test_a_longer_negative_prompt_is_brought_to_one_length_as_the_option_says(
    padding: Padding, lengths: tuple[int, int], filled: float | None
) -> None:
    base = conditioned(Prompt(context(1.0), 1.0), negative=context(2.0, 2))
    asked = Guidance(base, scale=3.0, padding=padding).at(0, SIGMA)
    assert asked.negative is not None
    assert (asked.prompts[0].context.tokens, asked.negative.tokens) == lengths
    if filled is not None:
        assert bool((asked.prompts[0].context.tensor[77:] == filled).all())


def test_a_shorter_negative_prompt_is_drawn_out_or_filled() -> None:
    base = conditioned(Prompt(context(1.0, 3), 1.0), negative=context(2.0))
    drawn = Guidance(base, scale=3.0, padding=Padding.NEGATIVE_TO_PROMPT).at(0, SIGMA).negative
    filled = Guidance(base, scale=3.0, padding=Padding.EMPTY_CHUNKS).at(0, SIGMA).negative
    assert drawn is not None and filled is not None
    assert bool((drawn.tensor == 2.0).all()) and drawn.tokens == 231
    assert bool((filled.tensor[77:] == 9.0).all()) and filled.tokens == 231


def test_a_refiner_that_has_taken_over_keeps_the_pass_when_the_levels_rise_again() -> None:
    refiner = conditioned(Prompt(context(1.0), 1.0), weights="refiner")
    guidance = Guidance(
        conditioned(Prompt(context(1.0), 1.0)), scale=3.0, evaluations=4, switch=Switch(refiner, 0.5)
    )

    def up_and_down() -> Sampling:
        for sigma in (LEVELS.sigmas[900], LEVELS.sigmas[100], LEVELS.sigmas[900]):
            yield Ask(X, sigma)
        return X

    asked: list[str] = []
    driving = guided(up_and_down(), guidance, lambda denoised, sigma: None)
    rows = next(driving)
    with pytest.raises(StopIteration):
        while True:
            assert isinstance(rows, list)
            asked.append(rows[0].weights)
            rows = driving.send([X for _ in rows])
    assert asked == ["base", "refiner", "refiner"]
