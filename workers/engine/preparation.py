"""From a resolved part to pictures ready to start: its passes, their schedules, their noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from atelier.contract.errors import InvalidRequest
from atelier.contract.parts import EngineSettings, ResolvedPart
from atelier.prompt import composition, networks
from atelier.prompt.spoken import plans
from atelier.vocabulary import find_sampler
from workers.engine import samplers
from workers.engine.denoise.control import Timed
from workers.engine.denoise.guidance import Conditioned, Guidance, Padding, Switch, WithoutNegative
from workers.engine.models import LATENT_SCALE, Models, PartModels
from workers.engine.noise.sources import NoisePlan, Upload
from workers.engine.picture import Pass, PictureRun, Recipe, SecondPass
from workers.engine.rows import Encode
from workers.engine.samplers.interface import LevelPlan, Sampler, SamplerOptions
from workers.engine.samplers.schedules import ScheduleOptions
from workers.engine.text.prompts import Encode as EncodeText
from workers.engine.text.prompts import PassPrompts
from workers.engine.text.reading import BLANK_NEGATIVE
from workers.engine.upscaling import Autoencoder, Target, enlargement

MOST_ROWS = 16
"""Of one forward."""

_OLD_BOUNDS = (0.1, 10.0)
"""Lowest and highest sigma that schedules with bounds once had in the peer."""

TextOf = Callable[[Models], EncodeText]
"""For a checkpoint: what encodes texts with its text encoder."""


@dataclass(frozen=True)
class _Plan:
    """A pass before it has its models: sampler by name, schedule, steps and size."""

    sampler: str
    scheduler: str
    steps: int
    size: tuple[int, int]
    second: bool = False
    asked: tuple[int, int] | None = None
    """The size SDXL is told, where it is not `size`."""


def recipes(
    part: ResolvedPart, models: PartModels, text_of: TextOf, upload: Upload, itemsize: int
) -> list[PictureRun]:
    """The part's pictures, not yet started. Raises InvalidRequest and UnknownName for what cannot be run.
    `upload` brings noise to the device, whose networks have numbers of `itemsize` bytes.
    """
    make = _Maker(part, models, text_of, upload)
    rows = max(rows_of(part.prompt, MOST_ROWS), rows_of(part.hires.prompt, MOST_ROWS) if part.hires else 0)
    rows += controlled(part)
    footprint = max(each.footprint(itemsize).picture(*size, rows) for each, size in make.sizes())
    return [PictureRun(index, make.recipe(index), footprint) for index in range(part.batch_size)]


def rows_of(prompt: str, most: int) -> int:
    """How many rows of a picture share a forward at most: one for each part of its composition, and the
    negative prompt's.
    """
    return min(len(composition.parse(networks.extract(prompt)[0])) + 1, most)


def controlled(part: ResolvedPart) -> int:
    """How many rows more a part's ControlNets are worth in working memory: what they add is kept until the
    way up, for about as many maps as a row has.
    """
    return 2 if part.control else 0


class _Maker:
    """Makes the recipes of one part's pictures; what they share is made once."""

    def __init__(self, part: ResolvedPart, models: PartModels, text_of: TextOf, upload: Upload) -> None:
        self._part, self._models, self._text_of, self._upload = part, models, text_of, upload
        self._spoken = plans(part)
        size = (part.width, part.height)
        self._first = _Plan(part.sampler, part.scheduler, part.steps, size)
        self._first_pass = self._pass(self._first, models.base)
        self._second_pass = self._second()

    def sizes(self) -> list[tuple[Models, tuple[int, int]]]:
        """Which models make a picture of which size in pixels."""
        hires = self._part.hires
        return [
            (self._models.base, (self._part.width, self._part.height)),
            *([(self._models.second, hires.upscaled)] if hires else []),
        ]

    def recipe(self, index: int) -> Recipe:
        """The recipe of picture `index`."""
        noise = noise_plan(self._part, index, self._models.base, (self._part.width, self._part.height))
        first = replace(self._first_pass, noise=noise)
        second, hires = self._second_pass, self._part.hires
        if second is None or hires is None:
            return Recipe(first)
        again = noise_plan(self._part, index, self._models.second, hires.size)
        return Recipe(first, SecondPass(second.enlarge, replace(second.run, noise=again)))

    def _second(self) -> SecondPass | None:
        hires, models = self._part.hires, self._models
        if hires is None:
            return None
        plan_ = _Plan(hires.sampler, hires.scheduler, hires.steps, hires.size, True, hires.upscaled)
        enlarge = enlargement(
            hires.upscaler,
            Target(hires.upscaled, hires.size),
            Autoencoder(models.base.vae.id, models.base.checkpoint.scale_factor),
            Autoencoder(models.second.vae.id, models.second.checkpoint.scale_factor),
            tiling=self._part.tiling,
        )
        return SecondPass(
            enlarge, self._over(self._pass(plan_, models.second), plan_, hires.denoising_strength)
        )

    def _pass(self, plan_: _Plan, models: Models) -> Pass:
        sampler, settings = samplers.find(plan_.sampler), self._part.settings
        levels = _level_plan(plan_, plan_.steps, settings, models)
        return Pass(
            sampler=sampler,
            plan=levels,
            sigmas=sampler.sigmas(levels),
            noise=noise_plan(self._part, 0, models, plan_.size),
            guidance=self._guidance(plan_, sampler, models),
            unit_start=settings.sgm_noise_multiplier,
            shown=self._shown(models, plan_.size),
            upload=self._upload,
        )

    def _over(self, run: Pass, plan_: _Plan, strength: float) -> Pass:
        """The pass over an earlier latent: the last `steps` of a schedule so long that they are its share
        `strength`.
        """
        if strength <= 0.0:
            return replace(run, sigmas=())
        whole = int(plan_.steps / min(strength, 0.999))
        levels = _level_plan(plan_, whole, self._part.settings, self._models.second)
        nothing = torch.zeros(())
        _, left = run.sampler.resume(nothing, nothing, levels, plan_.steps - 1)
        return replace(
            run,
            plan=levels,
            sigmas=left,
            encoded=plan_.steps - 1,
            extra_noise=self._part.settings.extra_noise,
        )

    def _guidance(self, plan_: _Plan, sampler: Sampler, models: Models) -> Guidance:
        settings, refiner = self._part.settings, self._part.refiner
        refined = self._models.refiner_of(plan_.second)
        evaluations = find_sampler(plan_.sampler)[0].counted(plan_.steps)
        switch = None
        if refiner is not None and refined is not None and self._refines(plan_):
            refiner_side = self._conditioned(plan_, refined)
            switch = Switch(refiner_side, refiner.switch_at, refiner.by_sampling_steps)
        return Guidance(
            base=self._conditioned(plan_, models),
            scale=self._part.cfg_scale,
            evaluations=evaluations,
            steps=plan_.steps,
            switch=switch,
            without_negative=WithoutNegative(
                settings.skip_early_cond, settings.s_min_uncond, settings.s_min_uncond_all
            ),
            both=sampler.needs_uncond,
            padding=_padding(settings),
        )

    def _refines(self, plan_: _Plan) -> bool:
        refiner = self._part.refiner
        if refiner is None or self._part.hires is None:
            return refiner is not None
        return refiner.passes in ("both passes", "second pass" if plan_.second else "first pass")

    def _conditioned(self, plan_: _Plan, models: Models) -> Conditioned:
        family, settings = models.checkpoint.family, self._part.settings
        encode = self._text_of(self._encoding(plan_, models))
        texts = PassPrompts(*self._spoken[int(plan_.second)], encode, blank=family in BLANK_NEGATIVE)
        crop = (settings.sdxl_crop_top, settings.sdxl_crop_left)
        told, told_negative = (
            models.told(plan_.asked or plan_.size, crop, score)
            for score in (
                settings.sdxl_refiner_high_aesthetic_score,
                settings.sdxl_refiner_low_aesthetic_score,
            )
        )
        return Conditioned(
            models.checkpoint.unet.id,
            models.prediction,
            texts.prompts,
            texts.negative,
            texts.empty,
            tiling=self._part.tiling,
            told=told,
            told_negative=told_negative,
            controls=self._controls(plan_, models),
        )

    def _controls(self, plan_: _Plan, models: Models) -> tuple[Timed, ...]:
        """The ControlNets that act in a pass; none on a refiner, as in the peer."""
        if models is not (self._models.second if plan_.second else self._models.base):
            return ()
        timed = [each.timed(self._upload, second=plan_.second) for each in self._models.controls]
        return tuple(each for each in timed if each is not None)

    def _encoding(self, plan_: _Plan, models: Models) -> Models:
        """The models whose text encoders read the prompts of a pass made with `models`."""
        hires, early = self._part.hires, self._part.settings.hires_fix_use_firstpass_conds
        own = plan_.second and models is self._models.second
        return self._models.base if early and own and hires and hires.checkpoint is None else models

    def _shown(self, models: Models, size: tuple[int, int]) -> Encode | None:
        """An inpainting model is shown the mask and the masked picture: here all is masked, and so grey."""
        extra = models.extra_channels
        if not extra:
            return None
        if extra != models.latent_channels + 1:
            raise InvalidRequest(
                f"The checkpoint {models.checkpoint.id[:10]} edits pictures and needs one as its input: "
                "use it with image-to-image, or choose another checkpoint."
            )
        grey = torch.zeros(models.picture_channels, size[1], size[0])
        return Encode(models.vae.id, grey, models.checkpoint.scale_factor, self._part.tiling)


def _level_plan(plan_: _Plan, steps: int, settings: EngineSettings, models: Models) -> LevelPlan:
    """What decides the sigmas of a schedule of `steps` steps."""
    return LevelPlan(
        plan_.scheduler,
        steps,
        schedule_options(settings, plan_.scheduler),
        replace(sampler_options(settings), levels=models.prediction.levels),
        models.prediction.levels,
    )


def _padding(settings: EngineSettings) -> Padding:
    """How prompts of different lengths are brought to one."""
    if settings.pad_cond_uncond_v0:
        return Padding.NEGATIVE_TO_PROMPT
    return Padding.EMPTY_CHUNKS if settings.pad_cond_uncond else Padding.NONE


def schedule_options(settings: EngineSettings, label: str) -> ScheduleOptions:
    """What the settings say of the schedule of that label."""
    old = settings.use_old_karras_scheduler_sigmas and label not in ("Automatic", "Uniform")
    low, high = _OLD_BOUNDS if old else (0.0, 0.0)
    return ScheduleOptions(
        sigma_min=settings.sigma_min or low,
        sigma_max=settings.sigma_max or high,
        rho=settings.rho,
        discard_next_to_last=settings.always_discard_next_to_last_sigma,
        beta_alpha=settings.beta_dist_alpha,
        beta_beta=settings.beta_dist_beta,
    )


def sampler_options(settings: EngineSettings) -> SamplerOptions:
    """What the settings say of a sampler."""
    return SamplerOptions(
        eta=settings.eta,
        s_churn=settings.s_churn,
        s_tmin=settings.s_tmin,
        s_tmax=settings.s_tmax or float("inf"),
        s_noise=settings.s_noise,
        eta_ddim=settings.eta_ddim,
        uni_pc_variant=settings.uni_pc_variant,
        uni_pc_skip_type=settings.uni_pc_skip_type,
        uni_pc_order=settings.uni_pc_order,
        uni_pc_lower_order_final=settings.uni_pc_lower_order_final,
    )


def noise_plan(part: ResolvedPart, index: int, models: Models, size: tuple[int, int]) -> NoisePlan:
    """The noise of picture `index` at a size in pixels (width, height)."""
    channels = models.latent_channels
    resize_width, resize_height = part.seed_resize_from
    resized = resize_width > 0 and resize_height > 0
    return NoisePlan(
        source=part.settings.randn_source,
        seed=part.seeds[index],
        shape=(channels, size[1] // LATENT_SCALE, size[0] // LATENT_SCALE),
        subseed=part.subseeds[index],
        subseed_strength=part.subseed_strength,
        resize_from=(channels, resize_height // LATENT_SCALE, resize_width // LATENT_SCALE)
        if resized
        else None,
        seed_delta=part.settings.eta_noise_seed_delta,
    )
