"""ControlNets: the library's numbers from every layout, and how strongly they act when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier import modelfile, modelkind
from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelKind
from tests.control_files import control_twin, save_control, save_detector
from tests.narrow import UNET, Twin, twin
from workers.engine import forward
from workers.engine.denoise.control import Timed, scales, share
from workers.engine.loader.checkpoint import ModelFile, Weights, read_checkpoint
from workers.engine.loader.control import read_control
from workers.engine.rows import Added, Context, Control, Hint, Row
from workers.engine.slots import Slot, SlotPool

SIZE = 16


def rows(made: Twin, controls: list[tuple[Control, ...]]) -> list[Row]:
    """Rows that differ in everything, with these controls."""
    stream = torch.Generator().manual_seed(5)
    width = made.modules[UNET].config.cross_attention_dim
    wide = made.modules[UNET].config.addition_embed_type is not None
    found = []
    for number, acting in enumerate(controls):
        latent = torch.randn(4, SIZE, SIZE, generator=stream)
        context = Context(torch.randn(77, width, generator=stream), torch.randn(48, generator=stream))
        added = Added(context.pooled, (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)) if wide else None
        found.append(Row(latent, 100.0 + 300 * number, context, "u", added=added, controls=acting))
    return found


def expected(made: Twin, library: torch.nn.Module, row: Row, control: Control | None) -> torch.Tensor:
    """What the library makes of a row."""
    told = {}
    if row.added is not None:
        told = {
            "added_cond_kwargs": {
                "text_embeds": row.added.pooled[None],
                "time_ids": torch.tensor([row.added.numbers]),
            }
        }
    shown = {"encoder_hidden_states": row.context.tensor[None], **told}
    unet, time = made.modules[UNET], torch.tensor([row.timestep])
    if control is None:
        return unet(row.latent[None], time, **shown).sample[0]
    down, middle = library(
        row.latent[None], time, controlnet_cond=control.hint.picture[None], return_dict=False, **shown
    )
    down = [each * scale for each, scale in zip(down, control.scales, strict=False)]
    return unet(
        row.latent[None],
        time,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle * control.scales[-1],
        **shown,
    ).sample[0]


def slot_of(made: Twin, place: Path) -> Slot:
    """The twin's UNet in a slot."""
    unet = read_checkpoint(ModelFile(made.save(place / "twin.safetensors")), "u").unet
    return SlotPool("cpu", torch.float32, 1).take(unet)


@pytest.mark.parametrize(
    ("family", "layout"), [("sd1", "ldm"), ("sd2", "bare"), ("sdxl", "diffusers"), ("sdxl", "ldm")]
)
def test_a_batch_of_rows_with_and_without_controls_is_the_librarys(
    tmp_path: Path, family: str, layout: str
) -> None:
    made = twin(family)
    library = control_twin(made)
    network = read_control(ModelFile(save_control(library, tmp_path / "c.safetensors", layout=layout)), "c")
    count = len(library.controlnet_down_blocks) + 1
    stream = torch.Generator().manual_seed(1)
    hints = [Hint(torch.rand(3, 8 * SIZE, 8 * SIZE, generator=stream)) for _ in range(2)]
    strong, soft = scales(count, 0.8), scales(count, 1.0, soft=True)
    one, other = Control(network, hints[0], strong), Control(network, hints[1], soft)
    asked = rows(made, [(one,), (), (other,)])
    pool = SlotPool("cpu", torch.float32, 2)
    with torch.inference_mode():
        added = forward.residuals(asked, pool.take)
        answers = forward.predict(slot_of(made, tmp_path), asked, None, added)
        for row, answer, control in zip(asked, answers, (one, None, other), strict=True):
            torch.testing.assert_close(answer, expected(made, library, row, control), rtol=1e-4, atol=1e-4)
    assert pool.changes == 1


def test_two_controls_on_one_row_add_up_and_models_are_changed_in_slots(tmp_path: Path) -> None:
    made = twin("sd1")
    networks = [
        read_control(ModelFile(save_control(control_twin(made, seed), tmp_path / f"{seed}.st")), f"c{seed}")
        for seed in (1, 2)
    ]
    hint = Hint(torch.rand(3, 8 * SIZE, 8 * SIZE))
    one, two = (Control(each, hint, scales(13, 1.0)) for each in networks)
    [row] = rows(made, [(one,)])
    pool = SlotPool("cpu", torch.float32, 2)
    with torch.inference_mode():
        alone = [forward.residuals([replace(row, controls=(each,))], pool.take) for each in (one, two)]
        both = forward.residuals([replace(row, controls=(one, two))], pool.take)
    for first, second, sum_ in zip(*alone, both, strict=True):
        torch.testing.assert_close(first + second, sum_, rtol=1e-4, atol=1e-5)
    assert pool.changes == 2


def test_a_model_that_shuffles_acts_by_the_mean_of_each_channel(tmp_path: Path) -> None:
    made = twin("sd1")
    network = read_control(ModelFile(save_control(control_twin(made), tmp_path / "c.st")), "c")
    hint = Hint(torch.rand(3, 8 * SIZE, 8 * SIZE))
    plain, pooled = (Control(network, hint, scales(13, 1.0), pooled=each) for each in (False, True))
    pool = SlotPool("cpu", torch.float32, 1)
    with torch.inference_mode():
        first = forward.residuals(rows(made, [(plain,)]), pool.take)
        second = forward.residuals(rows(made, [(pooled,)]), pool.take)
    for each, mean in zip(first, second, strict=True):
        expected_mean = each.mean((2, 3), keepdim=True).expand_as(each)
        torch.testing.assert_close(expected_mean, mean, rtol=1e-4, atol=1e-5)


def test_rows_without_controls_need_no_network() -> None:
    def none(_: Weights) -> Slot:
        raise AssertionError("no ControlNet is asked for")

    assert forward.residuals(rows(twin("sd1"), [(), ()]), none) == []


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"adapter.body.0.weight": torch.zeros(1)}, "Adapters"),
        ({"lora_controlnet": torch.zeros(1)}, "control LoRA"),
        ({"difference": torch.zeros(1)}, "difference"),
        ({"input_hint_block.0.weight": torch.zeros(16, 3, 3, 3)}, "lacks the tensor"),
    ],
)
def test_what_is_no_whole_controlnet_is_refused_in_words(
    tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ModelUnusable, match=words):
        read_control(ModelFile(tmp_path / "x.safetensors"), "x")


def test_a_controlnet_that_lacks_a_tensor_is_refused_naming_it(tmp_path: Path) -> None:
    tensors = load_file(save_control(control_twin(twin("sd1")), tmp_path / "c.safetensors"))
    del tensors["control_model.zero_convs.3.0.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(ModelUnusable, match=r"controlnet_down_blocks\.3\.bias"):
        read_control(ModelFile(tmp_path / "less.safetensors"), "c")


def test_files_are_told_apart_by_their_tensors(tmp_path: Path) -> None:
    made = control_twin(twin("sd1"))
    kinds = {
        ModelKind.CONTROLNET: save_control(made, tmp_path / "c.safetensors"),
        ModelKind.ANNOTATOR: save_detector(tmp_path / "hed.safetensors"),
    }
    for kind, path in kinds.items():
        assert modelkind.likely(modelfile.read_header(path)) is kind


def test_steps_are_counted_as_in_the_peer() -> None:
    assert [share(number, 10, 10) for number in range(4)] == [0.0, 0.0, 0.1, 0.2]
    assert [share(number, 8, 4) for number in range(8)] == [0, 0, 0, 0.25, 0.25, 0.5, 0.5, 0.75]
    control = Control(Weights("c", None, {}), Hint(torch.zeros(0)), (1.0,))  # type: ignore[arg-type]
    timed = Timed(control, 0.2, 0.7)
    acting = [number for number in range(10) if timed.acts(share(number, 10, 10))]
    assert acting == [3, 4, 5, 6, 7, 8]


def test_strengths_fall_towards_the_shallow_layers_where_the_prompt_is_more_important() -> None:
    assert scales(3, 0.5) == (0.5, 0.5, 0.5)
    soft = scales(13, 1.0, soft=True)
    assert soft[12] == 1.0
    assert soft[0] == pytest.approx(0.825**12)
    assert scales(13, 1.0, soft=True, own=[0.5] * 13) == (0.5,) * 13
