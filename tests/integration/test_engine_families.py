"""Every family as the engine runs it, held against the library's own modules with the same weights: written
out here in the simplest way that the publications describe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier.contract.models import ModelRef
from atelier.contract.parts import EngineSettings, Refiner
from atelier.prompt import tokens
from tests.engine_parts import part, reference
from tests.narrow import Twin, twin
from workers.engine import Engine, ModelFile
from workers.engine.loader.diffusers_layout import TEXT, TEXT_2, UNET, VAE

PATIENCE = 120.0
TWINS = {
    "sd1": {"family": "sd1"},
    "sd2": {"family": "sd2"},
    "sd2-v": {"family": "sd2", "velocity": True},
    "sdxl": {"family": "sdxl"},
    "sdxl-refiner": {"family": "sdxl-refiner"},
}
STEPS, SCALE, SEED = 2, 4.0, 7


class Studio:
    """An engine that has the twins, and the twins."""

    def __init__(self, place: Path) -> None:
        self.twins = {name: twin(seed=number, **more) for number, (name, more) in enumerate(TWINS.items())}  # type: ignore[arg-type]
        self._files = {name: made.save(place / f"{name}.safetensors") for name, made in self.twins.items()}
        self.engine = Engine(lambda ref: ModelFile(self._files[ref.name]))
        self.engine.start()

    def pixels(self, name: str, **changes: Any) -> np.ndarray:
        plain = {"steps": STEPS, "cfg_scale": SCALE, "seeds": (SEED,), "negative_prompt": "a green star"}
        made = self.engine.submit(part(name, **(plain | changes))).result(PATIENCE)
        assert not made.warnings
        return made.pictures[0].pixels.astype(int)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("twins"))
    yield made
    made.engine.close(30.0)


def ids(text: str, padding: int) -> torch.Tensor:
    words = tokens.encode(text)
    return torch.tensor([[tokens.START, *words, tokens.END, *[padding] * (75 - len(words))]])


def encoded(made: Twin, text: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[1, 77, width] and the pooled text, by the publications' choice of layers."""
    modules = made.modules
    if made.family == "sd1":
        return modules[TEXT](input_ids=ids(text, tokens.END)).last_hidden_state, None
    if made.family == "sd2":
        return modules[TEXT](input_ids=ids(text, 0)).last_hidden_state, None
    second = modules[TEXT_2](input_ids=ids(text, 0), output_hidden_states=True)
    states = [second.hidden_states[-2]]
    if TEXT in modules:
        first = modules[TEXT](input_ids=ids(text, tokens.END), output_hidden_states=True)
        states.insert(0, first.hidden_states[-2])
    return torch.cat(states, dim=-1), second.text_embeds


class Reference:
    """Euler's method over one twin, without batching."""

    def __init__(self, made: Twin, size: int = 64, *, crop: tuple[int, int] = (0, 0)) -> None:
        self.made, self.crop, self.size = made, crop, size
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1 - betas, dim=0).float()
        self.levels = ((1 - alphas) / alphas).sqrt()
        times = torch.linspace(999, 0, STEPS)
        logs, low = self.levels.log(), times.floor().long().clamp(max=998)
        share = times - low
        self.times = times
        self.sigmas = [*((1 - share) * logs[low] + share * logs[low + 1]).exp().tolist(), 0.0]

    def told(self, *, negative: bool) -> list[float]:
        size = [float(self.size)] * 2
        last = size if self.made.family == "sdxl" else [2.5 if negative else 6.0]
        return [*size, *(float(each) for each in self.crop), *last]

    def output(self, x: torch.Tensor, time: torch.Tensor, text: str, *, negative: bool) -> torch.Tensor:
        states, pooled = encoded(self.made, text)
        more = {}
        if pooled is not None:
            if negative and not text:
                states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
            more = {"text_embeds": pooled, "time_ids": torch.tensor([self.told(negative=negative)])}
        out: torch.Tensor = self.made.modules[UNET](x, time, states, added_cond_kwargs=more).sample
        return out

    def denoised(self, x: torch.Tensor, step: int, text: str, *, negative: bool) -> torch.Tensor:
        sigma = self.sigmas[step]
        spread = sigma**2 + 1
        out = self.output(x / math.sqrt(spread), self.times[step], text, negative=negative)
        if "scheduler" in self.made.configs:
            return x / spread - out * (sigma / math.sqrt(spread))
        return x - sigma * out

    def step(self, x: torch.Tensor, step: int, prompt: str, negative: str) -> torch.Tensor:
        wanted = self.denoised(x, step, prompt, negative=False)
        unwanted = self.denoised(x, step, negative, negative=True)
        guided = unwanted + (wanted - unwanted) * SCALE
        return x + (x - guided) / self.sigmas[step] * (self.sigmas[step + 1] - self.sigmas[step])

    def start(self) -> torch.Tensor:
        noise = torch.randn(
            (4, self.size // 8, self.size // 8), generator=torch.Generator().manual_seed(SEED)
        )
        return noise[None] * self.sigmas[0]

    def picture(self, latent: torch.Tensor) -> np.ndarray:
        scale = self.made.configs[VAE]["scaling_factor"]
        decoded = self.made.modules[VAE].decode(latent / scale).sample[0]
        levels = ((decoded + 1) / 2).clamp(0, 1) * 255
        return levels.permute(1, 2, 0).to(torch.uint8).numpy().astype(int)

    def pixels(self, prompt: str, negative: str) -> np.ndarray:
        x = self.start()
        for step in range(STEPS):
            x = self.step(x, step, prompt, negative)
        return self.picture(x)


@pytest.mark.parametrize("name", TWINS)
def test_a_family_makes_what_the_librarys_modules_make(studio: Studio, name: str) -> None:
    theirs = Reference(studio.twins[name]).pixels("a red circle", "a green star")
    assert np.abs(studio.pixels(name) - theirs).max() <= 1
    assert theirs.std() > 2


@pytest.mark.parametrize("name", ["sd2", "sdxl", "sdxl-refiner"])
def test_an_empty_negative_prompt_is_zeros_to_sdxl_alone(studio: Studio, name: str) -> None:
    theirs = Reference(studio.twins[name]).pixels("a red circle", "")
    assert np.abs(studio.pixels(name, negative_prompt="") - theirs).max() <= 1


def test_the_refiner_with_another_set_of_text_encoders_goes_on_with_the_bases_latent(studio: Studio) -> None:
    base, refiner = Reference(studio.twins["sdxl"]), Reference(studio.twins["sdxl-refiner"])
    x = base.start()
    for step in range(STEPS):
        x = (base if step < 1 else refiner).step(x, step, "a red circle", "a green star")
    switched = Refiner(checkpoint=reference("sdxl-refiner"), switch_at=0.4)
    ours = studio.pixels("sdxl", refiner=switched)
    assert np.abs(ours - refiner.picture(x)).max() <= 1
    assert np.abs(ours - studio.pixels("sdxl")).max() > 2


def test_sdxl_is_told_where_the_picture_is_cut(studio: Studio) -> None:
    settings = EngineSettings(randn_source="CPU", sdxl_crop_top=200, sdxl_crop_left=40)
    theirs = Reference(studio.twins["sdxl"], crop=(200, 40)).pixels("a red circle", "a green star")
    ours = studio.pixels("sdxl", settings=settings)
    assert np.abs(ours - theirs).max() <= 1
    assert not np.array_equal(ours, studio.pixels("sdxl"))


@pytest.mark.parametrize(("name", "changes"), [("sd1", True), ("sd2", False), ("sdxl", False)])
def test_clip_skip_is_heeded_by_sd1_alone(studio: Studio, name: str, changes: bool) -> None:
    skipped = studio.pixels(name, settings=EngineSettings(randn_source="CPU", clip_skip=2))
    assert np.array_equal(skipped, studio.pixels(name)) is not changes


def test_clip_skip_reaches_sdxls_first_encoder_where_it_is_asked_to(studio: Studio) -> None:
    usual, third = (
        studio.pixels(
            "sdxl", settings=EngineSettings(randn_source="CPU", clip_skip=skip, sdxl_clip_l_skip=True)
        )
        for skip in (2, 3)
    )
    assert np.array_equal(usual, studio.pixels("sdxl"))
    assert not np.array_equal(usual, third)


def test_a_mark_of_the_family_decides_what_a_model_predicts(studio: Studio) -> None:
    marked: ModelRef = reference("sd2").model_copy(update={"family": "sd2-v"})
    assert not np.array_equal(studio.pixels("sd2", checkpoint=marked), studio.pixels("sd2"))
