"""What is precomputed for a UNet: the same numbers as without, once per prompt and timestep, gone with the
weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from workers.engine import attention, forward
from workers.engine.blocks import UNet
from workers.engine.conditions import Conditions, Lines
from workers.engine.loader import networks
from workers.engine.loader.architecture import UNetShape
from workers.engine.loader.checkpoint import Weights
from workers.engine.rows import Added, Context, Row
from workers.engine.slots import Slot

NARROW = UNetShape(4, 4, (32, 64), (1, 1), 1, 1, 32, (4, 4), linear_projection=False)
TOLD = UNetShape(4, 4, (32, 64), (0, 2), 2, 1, 32, (4, 4), linear_projection=True, added=6 * 256 + 16)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def weights(shape: UNetShape, seed: int) -> Weights:
    torch.manual_seed(seed)
    return Weights(f"weights {seed}", shape, dict(networks.library(shape).state_dict()))


def filled(shape: UNetShape, seed: int = 0) -> Slot:
    slot = Slot(shape, "cpu", torch.float32)
    slot.fill(weights(shape, seed))
    return slot


def row(shape: UNetShape, timestep: float, prompt: Context, seed: int = 0, side: int = 8) -> Row:
    stream = torch.Generator().manual_seed(seed)
    added = Added(prompt.pooled, (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)) if prompt.pooled is not None else None
    return Row(torch.randn(4, side, side + 2, generator=stream), timestep, prompt, added=added)


def prompt(shape: UNetShape, seed: int) -> Context:
    stream = torch.Generator().manual_seed(seed)
    pooled = torch.randn(16, generator=stream) if shape.added else None
    return Context(torch.randn(77, shape.context, generator=stream), pooled)


def by_library(slot: Slot, asked: Row) -> torch.Tensor:
    """The prediction of the library's own network with the slot's weights."""
    assert isinstance(slot.shape, UNetShape)
    library = networks.library(slot.shape).eval()
    library.load_state_dict(slot.module.state_dict())
    told = None
    if asked.added is not None:
        told = {
            "text_embeds": asked.added.pooled[None],
            "time_ids": torch.tensor([asked.added.numbers]),
        }
    out: torch.Tensor = library(
        asked.latent[None],
        torch.tensor([asked.timestep]),
        asked.context.tensor[None],
        added_cond_kwargs=told,
        return_dict=False,
    )[0][0]
    return out


@pytest.mark.parametrize("shape", [NARROW, TOLD], ids=["SD1", "SDXL"])
def test_what_is_precomputed_gives_the_librarys_prediction_in_any_batch(shape: UNetShape) -> None:
    slot = filled(shape)
    asked = [row(shape, 3.5 + 200.0 * number, prompt(shape, number), number) for number in range(3)]
    for each, prediction in zip(asked, forward.predict(slot, asked), strict=True):
        assert torch.allclose(prediction, by_library(slot, each), atol=1e-5)
    again = forward.predict(slot, asked[1:2])
    assert torch.allclose(again[0], by_library(slot, asked[1]), atol=1e-5)


def test_a_prompt_and_a_timestep_are_computed_once_for_all_steps_and_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot, calls = filled(NARROW), []
    for name in ("keys", "times"):
        counted = getattr(UNet, name)
        monkeypatch.setattr(
            UNet, name, lambda *given, name=name, counted=counted: calls.append(name) or counted(*given)
        )
    first, second = prompt(NARROW, 1), prompt(NARROW, 2)
    for timestep in (999.0, 500.0, 999.0):
        forward.predict(slot, [row(NARROW, timestep, first), row(NARROW, timestep, second)])
    forward.predict(slot, [row(NARROW, 500.0, second, seed=5)])
    assert calls.count("keys") == 2 and calls.count("times") == 2


def test_other_weights_in_the_slot_make_everything_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    slot, asked = filled(NARROW, 0), row(NARROW, 500.0, prompt(NARROW, 1))
    before = forward.predict(slot, [asked])[0]
    slot.fill(weights(NARROW, 1))
    changed = forward.predict(slot, [asked])[0]
    assert torch.allclose(changed, by_library(slot, asked), atol=1e-5)
    assert not torch.allclose(changed, before, atol=1e-3)
    slot.fill(weights(NARROW, 0))
    assert torch.equal(forward.predict(slot, [asked])[0], before)


def test_what_is_remembered_stays_within_its_bound() -> None:
    slot = filled(NARROW)
    slot.conditions = Conditions(2_000_000)
    for number in range(30):
        forward.predict(slot, [row(NARROW, float(number), prompt(NARROW, number))])
        assert slot.conditions.size <= 2_000_000
    lines = Lines(8)
    lines.put("large", torch.zeros(100))
    assert lines.get("large") is not None, "one alone may be larger than the bound"
    lines.put("small", torch.zeros(1))
    assert lines.get("large") is None and len(lines) == 1


def test_attention_falls_back_with_its_reason_where_it_cannot_be_had() -> None:
    cpu = attention.Machine.of("cpu", torch.float32)
    for name in ("flash", "cudnn", "efficient", "xformers"):
        choice = attention.choose(name, cpu)
        assert choice.name == "sdpa" and name in (choice.note or "") and "CUDA" in (choice.note or "")
    assert attention.choose("auto", cpu) == attention.Choice("sdpa")


@pytest.mark.parametrize(
    ("asked", "capability", "chosen"),
    [
        ("auto", (9, 0), "cudnn"),
        ("auto", (8, 0), "sdpa"),
        ("auto", (7, 5), "sdpa"),
        ("cudnn", (8, 6), "cudnn"),
        ("flash", (8, 0), "flash"),
        ("flash", (7, 5), "sdpa"),
        ("efficient", (7, 5), "efficient"),
        ("math", (7, 5), "math"),
    ],
)
def test_attention_is_chosen_by_what_the_gpu_can_do(
    asked: str, capability: tuple[int, int], chosen: str
) -> None:
    machine = attention.Machine("cuda", capability, half=True, cudnn=True)
    choice = attention.choose(asked, machine)
    assert choice.name == chosen
    assert (choice.note is None) == (chosen == asked or asked == "auto")


def test_every_kernel_that_the_cpu_has_computes_the_same() -> None:
    queries, keys, values = torch.randn(3, 2, 4, 9, 8).unbind(0)
    wanted = attention.attend(queries, keys, values)
    with attention.choose("math", attention.Machine.of("cpu", torch.float32)).scope():
        assert torch.allclose(attention.attend(queries, keys, values), wanted, atol=1e-6)


def test_an_xformers_that_cannot_be_imported_is_told_of_and_replaced() -> None:
    machine = attention.Machine("cuda", (9, 0), half=True, xformers=True)
    choice = attention.choose("xformers", machine)
    assert choice.name == "sdpa" and "cannot be used" in (choice.note or "")


def test_weights_that_lie_channels_last_stay_so_and_predict_the_same() -> None:
    plain, last = filled(NARROW), Slot(NARROW, "cpu", torch.float32, channels_last=True)
    addresses = [each.data_ptr() for each in last.module.parameters()]
    last.fill(weights(NARROW, 0))
    convolutions = [each for each in last.module.parameters() if each.ndim == 4 and min(each.shape[1:]) > 1]
    assert convolutions
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in convolutions)
    assert [each.data_ptr() for each in last.module.parameters()] == addresses
    asked = [row(NARROW, 500.0, prompt(NARROW, number)) for number in range(2)]
    pairs = zip(forward.predict(plain, asked), forward.predict(last, asked), strict=True)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)
