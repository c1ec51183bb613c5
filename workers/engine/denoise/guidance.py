"""The layer between samplers and rows: what is asked of the network for one denoised latent, and how the
answers are combined.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

import torch

from workers.engine.denoise.control import Timed, share
from workers.engine.denoise.prediction import Prediction
from workers.engine.rows import Added, Context, Question, Row
from workers.engine.samplers.interface import Denoised, Sampling

Guided = Generator[Question, list[torch.Tensor], torch.Tensor]
Watch = Callable[[torch.Tensor, float], None]
"""Called with each denoised latent and the sigma it was asked for: progress, previews, and what is left when
a picture is stopped.
"""


class Prompt(NamedTuple):
    """One part of a composition and its weight (1 for a prompt without AND)."""

    context: Context
    weight: float


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A UNet as one picture's pass uses it: whose weights, what they predict, and what they are told.

    `prompts` and `negative` give the encoded prompts of an evaluation by its number in the pass, `empty` that
    of no words. `told` and `told_negative` are the numbers an SDXL network is told besides them.
    """

    weights: str
    prediction: Prediction
    prompts: Callable[[int], Sequence[Prompt]]
    negative: Callable[[int], Context]
    empty: Callable[[], Context]
    extra: torch.Tensor | None = None
    tiling: bool = False
    told: tuple[float, ...] = ()
    told_negative: tuple[float, ...] = ()
    controls: tuple[Timed, ...] = ()

    def rows(
        self,
        x: torch.Tensor,
        sigma: float,
        contexts: Sequence[Context],
        negative: Context | None = None,
        at: float = 0.0,
    ) -> list[Row]:
        """A row for each context, and for the negative one: `x` as the network is shown it. `at`: the share
        of the pass's steps that is done.
        """
        latent, timestep = self.prediction.scaled(x, sigma), self.prediction.levels.timestep(sigma)
        acting = [each for each in self.controls if each.acts(at)]
        controls = tuple(each.control for each in acting)
        asked = [(context, self.told, controls) for context in contexts]
        if negative is not None:
            both = tuple(each.control for each in acting if not each.cond_only)
            asked.append((negative, self.told_negative, both))
        return [
            Row(
                latent,
                timestep,
                context,
                self.weights,
                self.extra,
                self.tiling,
                None if context.pooled is None else Added(context.pooled, told),
                acting_on,
            )
            for context, told, acting_on in asked
        ]


class Padding(Enum):
    """How a prompt and a negative prompt of different lengths are brought to one (the peer's options): not
    at all, the shorter one with empty chunks, or the negative one cut or drawn out to the prompt's.
    """

    NONE = auto()
    EMPTY_CHUNKS = auto()
    NEGATIVE_TO_PROMPT = auto()


@dataclass(frozen=True)
class WithoutNegative:
    """When the negative prompt is left out to save time (the peer's options): in the share `early` of the
    first evaluations, and below `sigma` in every other one, or in all of them.
    """

    early: float = 0.0
    sigma: float = 0.0
    every: bool = False

    def now(self, evaluation: int, evaluations: int, sigma: float) -> bool:
        """Whether evaluation number `evaluation` of a pass of `evaluations`, at `sigma`, does without."""
        if self.early and evaluation / evaluations <= self.early:
            return True
        return bool(evaluation % 2 or self.every) and 0.0 < sigma < self.sigma


@dataclass(frozen=True, eq=False)
class Switch:
    """The refiner: from the share `at` of the noise levels on, or of the evaluations, another UNet is
    asked.
    """

    refiner: Conditioned
    at: float
    by_evaluations: bool = False

    def now(self, base: Prediction, evaluation: int, evaluations: int, sigma: float) -> bool:
        """Whether the evaluation is the refiner's."""
        if self.by_evaluations:
            return evaluation / evaluations >= self.at
        sigmas = base.levels.sigmas
        above = bisect_left(sigmas, sigma)
        nearest = min(
            range(max(above - 1, 0), min(above + 1, len(sigmas))), key=lambda t: abs(sigmas[t] - sigma)
        )
        return (len(sigmas) - 1 - nearest) / len(sigmas) >= self.at


@dataclass(frozen=True, eq=False)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022), composable (Liu et al. 2022): uncond + sum of weight *
    scale * (cond - uncond).

    `evaluations` is how many the pass has as its options count them: `steps`, doubled for samplers of second
    order. At scale 1 with a single prompt of weight 1 the negative prompt has no part in the result and is
    not evaluated, unless `both` says that the sampler itself wants it.
    """

    base: Conditioned
    scale: float
    evaluations: int = 1
    steps: int = 1
    switch: Switch | None = None
    without_negative: WithoutNegative = WithoutNegative()
    both: bool = False
    padding: Padding = Padding.NONE

    def shown(self, extra: torch.Tensor) -> Guidance:
        """This guidance with `extra` channels [E, H, W] for the network to see."""
        return replace(self, base=replace(self.base, extra=extra))

    def at(self, evaluation: int, sigma: float, *, refined: bool = False) -> Asked:
        """What evaluation number `evaluation` (from 0) of the pass asks at `sigma`. `refined`: the refiner
        has taken over before, and keeps the pass.
        """
        used, switch = self.base, self.switch
        if switch and (refined or switch.now(self.base.prediction, evaluation, self.evaluations, sigma)):
            used = switch.refiner
        prompts, done = (
            _of_one_length(used.prompts(evaluation)),
            share(evaluation, self.evaluations, self.steps),
        )
        if self.without_negative.now(evaluation, self.evaluations, sigma):
            return Asked(used, prompts, None, 1.0, done)
        plain = self.scale == 1.0 and len(prompts) == 1 and prompts[0].weight == 1.0
        negative = None if plain and not self.both else used.negative(evaluation)
        if negative is not None and negative.tokens != prompts[0].context.tokens:
            prompts, negative = self._padded(used, prompts, negative)
        return Asked(used, prompts, negative, self.scale, done)

    def _padded(
        self, used: Conditioned, prompts: Sequence[Prompt], negative: Context
    ) -> tuple[Sequence[Prompt], Context]:
        """Prompts and a negative prompt of different lengths, as the option wants them."""
        tokens = prompts[0].context.tokens
        if self.padding is Padding.NEGATIVE_TO_PROMPT:
            return prompts, negative.lengthened(tokens).shortened(tokens)
        if self.padding is Padding.EMPTY_CHUNKS:
            longest, empty = max(tokens, negative.tokens), used.empty()
            filled = [Prompt(each.context.filled(longest, empty), each.weight) for each in prompts]
            return filled, negative.filled(longest, empty)
        return prompts, negative


def _of_one_length(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """The parts of a composition as the peer shows them to the network: the shorter ones go on with their
    last vector.
    """
    longest = max(prompt.context.tokens for prompt in prompts)
    if all(prompt.context.tokens == longest for prompt in prompts):
        return prompts
    return [Prompt(prompt.context.lengthened(longest), prompt.weight) for prompt in prompts]


class Asked(NamedTuple):
    """One evaluation: a row for each prompt, then the negative one, if any. `done`: the share of the pass's
    steps that is done.
    """

    used: Conditioned
    prompts: Sequence[Prompt]
    negative: Context | None
    scale: float
    done: float = 0.0

    def rows(self, x: torch.Tensor, sigma: float) -> list[Row]:
        """The rows to evaluate for `x` at `sigma`."""
        contexts = [prompt.context for prompt in self.prompts]
        return self.used.rows(x, sigma, contexts, self.negative, self.done)

    def combine(self, x: torch.Tensor, sigma: float, outputs: Sequence[torch.Tensor]) -> Denoised:
        """The denoised latents that the outputs for `rows(x, sigma)` mean."""
        views = [self.used.prediction.denoised(x, sigma, output) for output in outputs]
        conds = views if self.negative is None else views[:-1]
        # without a negative prompt the first prompt stands in its place, as in the peer
        uncond = conds[0] if self.negative is None else views[-1]
        if self.negative is None and len(conds) == 1 and self.prompts[0].weight == 1.0:
            return Denoised(conds[0], conds[0], conds[0])
        guided = uncond
        for prompt, cond in zip(self.prompts, conds, strict=True):
            guided = guided + (cond - uncond) * (prompt.weight * self.scale)
        return Denoised(guided, conds[0], uncond)


def guided(sampling: Sampling, guidance: Guidance, watch: Watch) -> Guided:
    """Drive a sampler: turn its questions into evaluations and their predictions into its answers. Returns
    its last latent.
    """
    evaluation, refined = 0, False
    try:
        ask = next(sampling)
        while True:
            asked = guidance.at(evaluation, ask.sigma, refined=refined)
            refined = asked.used is not guidance.base
            outputs = yield asked.rows(ask.x, ask.sigma)
            answer = asked.combine(ask.x, ask.sigma, outputs)
            evaluation += 1
            watch(answer.denoised, ask.sigma)
            ask = sampling.send(answer)
    except StopIteration as end:
        latent: torch.Tensor = end.value
        return latent
