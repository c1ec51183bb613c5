"""A device that works behind the engine's thread. Nothing of a step waits for it: shown on torch's meta
device, whose tensors have no numbers to wait for, so that asking for one raises. What is brought to the host
is waited for: shown on a device that is always late.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.engine_parts import part
from tests.late_device import RUBBISH, late_device
from tests.unit.engine.analytic import sd_levels
from workers.engine import device, forward, samplers
from workers.engine.denoise.guidance import Conditioned, Guidance, Prompt
from workers.engine.denoise.prediction import Prediction
from workers.engine.device import AHEAD, Device
from workers.engine.loader import networks
from workers.engine.loader.architecture import TextShape, UNetShape
from workers.engine.noise.sources import NoisePlan, PictureNoise
from workers.engine.picture import Pass, PictureRun, Recipe
from workers.engine.preparation import sampler_options
from workers.engine.rows import Added, Context, Row
from workers.engine.samplers.interface import LevelPlan
from workers.engine.samplers.schedules import ScheduleOptions
from workers.engine.slots import Slot
from workers.engine.text.encoder import TextOptions, encode
from workers.engine.text.reading import READINGS

SHAPE = (4, 8, 8)
PLAIN = UNetShape(4, 4, (32, 64), (1, 1), 1, 1, 32, (4, 4), linear_projection=False)
TOLD = UNetShape(4, 4, (32, 64), (0, 2), 2, 1, 32, (4, 4), linear_projection=True, added=6 * 256 + 16)
TEXT = TextShape(width=32, layers=3, heads=4, inner=64, vocabulary=49408, positions=77, activation="gelu")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def away(tensor: torch.Tensor) -> torch.Tensor:
    """Where numbers cannot be asked for."""
    return tensor.to("meta")


def of_sampler(name: str, steps: int = 6) -> PictureRun:
    """A picture on the meta device, guided by a prompt and a negative prompt."""
    sampler, levels = samplers.find(name), sd_levels()
    options = replace(sampler_options(part().settings), levels=levels)
    plan = LevelPlan("Automatic", steps, ScheduleOptions(), options, levels)
    prompt, negative = (Context(torch.empty(77, 32, device="meta")) for _ in range(2))
    told = Conditioned(
        "weights", Prediction(levels), lambda _: [Prompt(prompt, 1.0)], lambda _: negative, lambda: negative
    )
    noise = NoisePlan("NV", 7, SHAPE, subseed=8, subseed_strength=0.3)
    guidance = Guidance(base=told, scale=7.0, evaluations=steps, both=sampler.needs_uncond)
    run = Pass(sampler, plan, sampler.sigmas(plan), noise, guidance, upload=away)
    return PictureRun(0, Recipe(run), 0)


def finished(picture: PictureRun, answer: torch.Tensor) -> torch.Tensor:
    """The picture's latent, every row of it answered with the same."""
    picture.start(0.0)
    while not picture.complete:
        for number in picture.open_rows:
            assert picture.asked[number].latent.device.type == "meta"
            picture.answer(number, answer, 0.0)
    assert picture.latent is not None
    return picture.latent


@pytest.mark.parametrize("name", [name for name, each in samplers.SAMPLERS.items() if not each.adaptive])
def test_no_sampler_waits_for_the_device(name: str) -> None:
    picture = of_sampler(name)
    latent = finished(picture, torch.empty(SHAPE, device="meta"))
    assert latent.device.type == "meta" and latent.shape == SHAPE
    assert picture.denoised is not None and picture.step >= 6


def test_only_the_sampler_that_chooses_its_steps_by_their_error_asks_for_it() -> None:
    assert [name for name, each in samplers.SAMPLERS.items() if each.adaptive] == ["DPM adaptive"]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        finished(of_sampler("DPM adaptive"), torch.empty(SHAPE, device="meta"))


@pytest.mark.parametrize("shape", [PLAIN, TOLD], ids=["plain", "told sizes"])
def test_a_forward_waits_for_nothing(shape: UNetShape) -> None:
    slot = Slot(shape, "meta", torch.float16)
    pooled = torch.empty(16, device="meta") if shape.added else None
    contexts = [Context(torch.empty(77, 32, device="meta"), pooled) for _ in range(2)]
    rows = [_row(context, timestep) for context in contexts for timestep in (1.0, 500.25)]
    outputs = forward.predict(slot, rows)
    assert [(each.shape, each.dtype, each.device.type) for each in outputs] == [
        (torch.Size(SHAPE), torch.float32, "meta")
    ] * 4


def _row(context: Context, timestep: float) -> Row:
    told = None if context.pooled is None else Added(context.pooled, (64.0, 64.0, 0.0, 0.0, 64.0, 64.0))
    return Row(torch.empty(SHAPE, device="meta"), timestep, context, added=told)


@pytest.mark.parametrize(("family", "mode"), [("sd1", "Original"), ("sd1", "No norm"), ("sdxl", "Original")])
def test_a_prompt_is_encoded_without_waiting(family: str, mode: str) -> None:
    shapes = [replace(TEXT, projection=16 if each.pools else 0) for each in READINGS[family]]
    modules = [networks.empty(shape, "cpu", torch.float32).to("meta") for shape in shapes]
    context = encode(modules, family, "a (red:1.4) circle", TextOptions(emphasis=mode), away)
    assert context.tensor.shape == (77, 32 * len(modules)) and context.tensor.device.type == "meta"
    if family == "sdxl":
        assert context.pooled is not None and context.pooled.shape == (16,)


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_noise_comes_up_as_it_was_drawn(source: str) -> None:
    late, _ = late_device()
    plan = NoisePlan(source, 5, SHAPE, subseed=6, subseed_strength=0.2)
    here, there = PictureNoise(plan), PictureNoise(plan, upload=late.upload)
    assert torch.equal(here.first(), there.first())
    assert torch.equal(here.step(), there.step())
    ours, theirs = (each.brownian(0.03, 14.6)(3.0, 2.0) for each in (here, there))
    assert torch.equal(ours, theirs)


def test_what_is_fetched_is_there_when_it_was_waited_for() -> None:
    late, driver = late_device()
    given = torch.arange(6.0).reshape(2, 3), torch.tensor([True, False])
    fetched = late.fetch(*given)
    raw = fetched._tensors
    assert not fetched.ready
    assert bool((raw[0] == RUBBISH).all()), "nothing has come yet"
    numbers, flags = fetched.result()
    assert torch.equal(numbers, given[0]) and torch.equal(flags, given[1])
    assert driver.queues[2].log == ["after main"]


def test_one_may_look_until_it_is_there() -> None:
    late, _ = late_device()
    fetched = late.fetch(torch.ones(3))
    looks = 0
    while not fetched.ready:
        looks += 1
    assert looks and torch.equal(fetched.result()[0], torch.ones(3))


def test_what_runs_beside_the_steps_begins_when_its_latents_are_there_and_holds_them() -> None:
    late, driver = late_device()
    latent = torch.ones(4)
    main, second, downward = driver.queues
    with late.beside(latent):
        assert driver.current() is second
        late.fetch(latent * 2)
    assert driver.current() is main
    assert second.log == ["after main"] and downward.log == ["after queue 1"]
    assert (latent.data_ptr(), second.name) in driver.held
    assert not main.log, "the steps wait for nothing"


def test_the_thread_is_a_few_forwards_ahead_and_no_more() -> None:
    late, driver = late_device()
    for number in range(6):
        late.keep_pace()
        waited = [place.waited for place in driver.places]
        assert waited == [True] * max(number + 1 - AHEAD, 0) + [False] * min(number + 1, AHEAD)


@pytest.mark.parametrize(("side", "together"), [(64, 8), (512, 4), (768, 1), (1024, 1), (2048, 1)])
def test_a_decode_takes_as_many_pictures_as_make_a_large_one(side: int, together: int) -> None:
    late, _ = late_device()
    assert late.decoded_together(torch.Size((4, side // 8, side // 8))) == together


def test_the_cpu_has_computed_when_it_answers() -> None:
    here, tensor = device.of("cpu"), torch.ones(2)
    assert type(here) is Device
    assert here.upload(tensor) is tensor
    fetched = here.fetch(tensor)
    assert fetched.ready and fetched.result()[0] is tensor
