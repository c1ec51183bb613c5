"""A picture at work: the generator that makes it, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from workers.engine.denoise.guidance import Guidance, Guided, Watch, guided
from workers.engine.noise.sources import NoisePlan, PictureNoise, Upload
from workers.engine.rows import Decode, Encode, Question, Row
from workers.engine.samplers.interface import LevelPlan, Sampler
from workers.engine.upscaling import Enlarge


@dataclass(frozen=True, eq=False)
class Pass:
    """One run of a sampler. `sigmas` are the levels it goes through. A pass over an earlier latent is `over`
    the last steps of `plan`: as many as `encoded`, which the latent is noised back over, and one more.
    """

    sampler: Sampler
    plan: LevelPlan
    sigmas: tuple[float, ...]
    noise: NoisePlan
    guidance: Guidance
    unit_start: bool = False
    """Start from noise of sqrt(1 + sigma^2) instead of sigma (the option "SGM noise multiplier")."""
    encoded: int = 0
    extra_noise: float = 0.0
    """Of the starting noise, added to an earlier latent once more."""
    shown: Encode | None = None
    """What an inpainting model is shown where nothing is masked: asked for before the first step."""
    upload: Upload = lambda drawn: drawn
    """Brings the noise to where the sampler's latents are."""

    @property
    def evaluations(self) -> int:
        """How many evaluations it takes (an estimate where the sampler decides as it goes)."""
        return self.sampler.evaluations(self.sigmas) if self.sigmas else 0

    def of_noise(self, watch: Watch) -> Guided:
        """The latent sampled from noise alone."""
        noise = PictureNoise(self.noise, upload=self.upload)
        start = self.sampler.start(noise.first(), self.sigmas, unit_signal=self.unit_start)
        return (yield from self._sampled(start, noise, watch))

    def over(self, latent: torch.Tensor, watch: Watch) -> Guided:
        """The latent that `latent` becomes: noised, and sampled from there. Without levels it stays as it
        is.
        """
        if not self.sigmas:
            return latent
        whole = [sigma for sigma in self.sampler.sigmas(self.plan) if sigma > 0.0]
        noise = PictureNoise(self.noise, span=(min(whole), max(whole)), upload=self.upload)
        drawn = noise.first()
        start, _ = self.sampler.resume(latent, drawn, self.plan, self.encoded)
        if self.extra_noise:
            loudness = math.sqrt(1.0 + self.sigmas[0] ** 2) if self.sampler.unit else 1.0
            start = start + drawn * (self.extra_noise * loudness)
        return (yield from self._sampled(start, noise, watch))

    def _sampled(self, start: torch.Tensor, noise: PictureNoise, watch: Watch) -> Guided:
        guidance = self.guidance
        if self.shown is not None:
            [plain] = yield self.shown
            # the mask comes first: all of the picture is to be made
            guidance = guidance.shown(torch.cat([torch.ones_like(plain[:1]), plain]))
        sampling = self.sampler(start, self.sigmas, noise, self.plan.options)
        return (yield from guided(sampling, guidance, watch))


@dataclass(frozen=True, eq=False)
class SecondPass:
    """What follows the first pass of hires fix: the latent is enlarged, by `enlarge`, and sampled again."""

    enlarge: Enlarge
    run: Pass


@dataclass(frozen=True, eq=False)
class Recipe:
    """Everything a picture's latent is computed from."""

    first: Pass
    second: SecondPass | None = None

    @property
    def evaluations(self) -> int:
        """Evaluations of all passes."""
        return self.first.evaluations + (self.second.run.evaluations if self.second else 0)

    @property
    def sensitive(self) -> bool:
        """Whether the rounding of a larger batch may change the picture: a sampler that decides its steps by
        thresholds may decide otherwise then.
        """
        runs = [self.first, *([self.second.run] if self.second else [])]
        return any(run.sampler.adaptive for run in runs)


def latent_of(recipe: Recipe, watch: Watch) -> Guided:
    """The generator that makes the picture's latent: yields questions, is sent their answers, returns the
    latent.
    """
    latent = yield from recipe.first.of_noise(watch)
    if recipe.second is None:
        return latent
    larger = yield from recipe.second.enlarge(latent)
    return (yield from recipe.second.run.over(larger, watch))


class PictureRun:
    """A picture while it is made. Only the executor's thread touches it; others may read `denoised` and
    `step`.
    """

    def __init__(self, index: int, recipe: Recipe, footprint: int) -> None:
        self.index, self.footprint = index, footprint
        self.steps = recipe.evaluations
        self.sensitive = recipe.sensitive
        """Whether each of its rows is to have a forward of its own."""
        self.step = 0
        self.denoised: torch.Tensor | None = None
        self.latent: torch.Tensor | None = None
        self.weights = recipe.first.guidance.base.weights
        """The UNet asked last: its checkpoint's autoencoder makes the picture, as in the peer."""
        self.complete = False
        self.asked: Sequence[Row] = []
        self.between: Decode | Encode | None = None
        """A question to the autoencoder, while it is open."""
        self.asked_at = 0.0
        self._answers: dict[int, torch.Tensor] = {}
        self._made = latent_of(recipe, self._watch)

    def _watch(self, denoised: torch.Tensor, sigma: float) -> None:
        self.denoised = denoised
        self.step += 1

    def start(self, now: float) -> None:
        """Ask the first question."""
        self._go_on(lambda: next(self._made), now)

    def _go_on(self, resume: Callable[[], Question], now: float) -> None:
        """Let the generator run to its next question or to its end."""
        self.asked, self.between, self.asked_at, self._answers = [], None, now, {}
        try:
            question = resume()
        except StopIteration as end:
            self.latent, self.complete = end.value, True
            return
        if isinstance(question, Decode | Encode):
            self.between = question
        else:
            self.asked, self.weights = question, question[0].weights

    @property
    def open_rows(self) -> list[int]:
        """Numbers of the asked rows that have no prediction yet."""
        return [number for number in range(len(self.asked)) if number not in self._answers]

    def answer(self, number: int, prediction: torch.Tensor, now: float) -> None:
        """Take the prediction for an asked row; with the last one the picture goes on to its next question or
        to its end.
        """
        self._answers[number] = prediction
        if len(self._answers) == len(self.asked):
            outputs = [self._answers[place] for place in range(len(self.asked))]
            self._go_on(lambda: self._made.send(outputs), now)

    def answer_between(self, answer: torch.Tensor, now: float) -> None:
        """Take the autoencoder's answer."""
        self._go_on(lambda: self._made.send([answer]), now)

    def stop(self) -> bool:
        """End it here, with the newest denoised latent as its result. False where there is none yet."""
        self._made.close()
        self.asked, self.between = [], None
        self.latent = self.denoised
        return self.latent is not None
