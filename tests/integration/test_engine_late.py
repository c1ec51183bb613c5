"""The engine on a device that is always behind: the same pictures bit for bit, previews and decodes taken
when they are there, actions heeded meanwhile. What a GPU computes is computed by the CPU here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier.contract.errors import InvalidRequest
from atelier.contract.parts import Action, HiresPass
from tests.engine_parts import part
from tests.late_device import Late, late_device
from tests.narrow import twin
from tests.waiting import eventually
from workers.engine import Engine, EngineResult, ModelFile, device
from workers.engine.loader.diffusers_layout import UNET, VAE
from workers.engine.networks_at_work import NetworksAtWork

PATIENCE = 120.0
LOUD = 2e5
"""See test_engine_precision: what float16 does not hold."""
SECOND: dict[str, Any] = {
    "size": (96, 96), "upscaled": (96, 96), "steps": 2, "denoising_strength": 0.6, "sampler": "Euler",
    "scheduler": "Automatic", "prompt": "a red circle", "negative_prompt": "",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "Euler": {},
    "Euler a, noise of CUDA": {
        "sampler": "Euler a",
        "settings": part().settings.model_copy(update={"randn_source": "NV"}),
    },
    "DPM++ SDE": {"sampler": "DPM++ SDE"},
    "DPM adaptive": {"sampler": "DPM adaptive"},
    "a variation": {"subseeds": (9,), "subseed_strength": 0.4},
    "emphasis": {"prompt": "a (red:1.4) circle AND a star"},
    "five pictures": {"seeds": (1, 2, 3, 4, 5), "subseeds": (0,) * 5},
    "enlarged as a latent": {"hires": HiresPass(upscaler="Latent", **SECOND)},
    "enlarged as a picture": {"hires": HiresPass(upscaler="Lanczos", **SECOND)},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("late")
    calm, loud, broken = twin("sdxl", seed=1), twin("sd1", seed=1), twin("sd1", seed=1)
    loud.modules[VAE].decoder.conv_in.weight.mul_(LOUD)
    broken.modules[UNET].conv_out.weight.fill_(float("nan"))
    made = {"one": calm, "loud": loud, "broken": broken}
    return {name: each.save(place / f"{name}.safetensors") for name, each in made.items()}


Make = Callable[..., Engine]


@pytest.fixture
def make(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    engines: list[Engine] = []

    def build(late: Late | None = None, **options: Any) -> Engine:
        with monkeypatch.context() as patched:
            if late is not None:
                patched.setattr(device, "of", lambda _: device.QueuedDevice(torch.device("cpu"), late))
            engines.append(Engine(lambda ref: ModelFile(files[ref.name]), **options))
        engines[-1].start()
        return engines[-1]

    # as many together as on the CPU: larger batches round otherwise
    monkeypatch.setattr(device, "_MOST_PICTURES", 2)
    yield build
    for engine in engines:
        engine.close(30.0)


def pixels(result: EngineResult) -> list[np.ndarray]:
    return [picture.pixels for picture in result.pictures]


@pytest.mark.parametrize("case", list(CASES))
def test_the_pictures_are_the_same_bit_for_bit(make: Make, case: str) -> None:
    asked = part(**CASES[case])
    _, driver = late_device()
    here, there = (make(late).submit(asked).result(PATIENCE) for late in (None, driver))
    assert len(here.pictures) == len(there.pictures) == len(asked.seeds)
    for ours, theirs in zip(pixels(here), pixels(there), strict=True):
        assert np.array_equal(ours, theirs) and ours.std() > 2


def test_what_half_precision_does_not_hold_is_decoded_again(make: Make) -> None:
    _, driver = late_device()
    asked = part("loud", steps=2, seeds=(1, 2, 3), subseeds=(0, 0, 0))
    here, there = (make(late, dtype="float16").submit(asked).result(PATIENCE) for late in (None, driver))
    assert here.warnings == there.warnings and len(here.warnings) == 1
    assert all(np.array_equal(*pair) for pair in zip(pixels(here), pixels(there), strict=True))


def test_a_picture_beyond_all_bounds_fails_and_others_do_not(make: Make) -> None:
    _, driver = late_device()
    engine = make(driver)
    broken, other = engine.submit(part("broken")), engine.submit(part())
    with pytest.raises(InvalidRequest, match="beyond all bounds"):
        broken.result(PATIENCE)
    assert pixels(other.result(PATIENCE))[0].std() > 2


def test_a_preview_is_fetched_for_whoever_asks_and_the_steps_go_on(make: Make) -> None:
    _, driver = late_device()
    engine = make(driver)
    handle = engine.submit(part(steps=60))
    shown = eventually(lambda: [found for found in [handle.preview()] if found is not None], within=60.0)
    assert shown[0].shape == (64, 64, 3)
    assert len(handle.result(PATIENCE).pictures) == 1
    assert not driver.queues[0].log, "the queue of the steps never waits for another"


@pytest.mark.parametrize("action", [Action.STOP_NOW, Action.CANCEL])
def test_an_action_ends_a_part_some_of_whose_pictures_are_being_decoded(make: Make, action: Action) -> None:
    _, driver = late_device()
    engine = make(driver)
    handle = engine.submit(part(seeds=tuple(range(6)), subseeds=(0,) * 6))
    other = engine.submit(part(steps=40))
    eventually(lambda: handle.progress().phase == "decoding" or handle.done(), within=60.0)
    handle.act(action)
    result = handle.result(PATIENCE)
    assert result.cancelled == (action is Action.CANCEL)
    assert len(other.result(PATIENCE).pictures) == 1
    assert engine.submit(part()).result(PATIENCE).pictures


@pytest.mark.parametrize(("recorded", "together"), [(0, 4), (1 << 40, 2)])
def test_what_recordings_hold_no_picture_is_admitted_to(
    make: Make, monkeypatch: pytest.MonkeyPatch, recorded: int, together: int
) -> None:
    monkeypatch.setattr(NetworksAtWork, "recorded", recorded)
    rows: list[int] = []

    def counted(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if type(module).__name__ == "UNet":
            rows.append(int(arguments[0].shape[0]))

    engine = make()
    with torch.nn.modules.module.register_module_forward_pre_hook(counted):
        result = engine.submit(part(seeds=(1, 2), subseeds=(0, 0))).result(PATIENCE)
    assert len(result.pictures) == 2
    assert max(rows) == together, "one picture after the other where the memory is not theirs"
