"""Networks at work in the engine: fairness between sets, restored weights, SDXL's names and encoders. Each
picture is held against that of a checkpoint with the same numbers written into its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import EngineSettings, HiresPass, NetworkUse
from tests.engine_parts import part, reference
from tests.integration.worker_process import tiny_checkpoint
from tests.lora_files import attentions, lora_file, product
from tests.narrow import twin
from workers.engine import Engine, ModelFile
from workers.engine.loader.diffusers_layout import TEXT, TEXT_2, UNET
from workers.engine.rows import BatchKey
from workers.engine.slots import Slot
from workers.engine.turns import Turn, Turns

PATIENCE = 120.0
STEPS = 13


def used(name: str, te: float = 1.0, unet: float | None = None) -> NetworkUse:
    return NetworkUse(
        model=reference(name, ModelKind.LORA), called=name, te=te, unet=te if unet is None else unet
    )


def pixels(engine: Engine, name: str, **changes: Any) -> np.ndarray:
    made = engine.submit(part(name, **changes)).result(PATIENCE)
    assert not made.warnings
    return made.pictures[0].pixels.astype(int)


def far(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


# --- Two sets on one slot.


@dataclass(frozen=True)
class Counted(Turns):
    """The fairness rule with turns in place of seconds. `waits`: for each turn the most turns that a group
    had waited by then.
    """

    hold: float = 0.0
    waits: list[int] = field(default_factory=list)
    since: dict[BatchKey, int] = field(default_factory=dict)

    def next(
        self,
        waiting: Mapping[BatchKey, float],
        slots: Mapping[str, Sequence[Slot]],
        room: Mapping[str, bool],
        now: float,
    ) -> Turn:
        turn = len(self.waits)
        for gone in self.since.keys() - waiting.keys():
            del self.since[gone]
        ages = {key: turn - self.since.setdefault(key, turn) for key in waiting}
        self.waits.append(max(ages.values()))
        chosen = super().next({key: now - age for key, age in ages.items()}, slots, room, now)
        self.since.pop(chosen.key)
        return chosen


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint and two LoRA for its attentions and text encoder."""
    place = tmp_path_factory.mktemp("networks")
    checkpoint = tiny_checkpoint(place / "one.safetensors", 1)
    names = attentions(checkpoint)
    loras = {name: lora_file(place / f"{name}.safetensors", names, n) for n, name in enumerate(("a", "b"))}
    return {"one": checkpoint, **loras}


SETS = ((used("a", 0.8),), (used("b", 0.5), used("a", 0.3, 1.2)))


def test_eight_clients_with_two_sets_change_weights_six_times_in_a_hundred_steps_and_none_waits_too_long(
    files: dict[str, Path],
) -> None:
    turns, opened, rounds = Counted(), list[str](), 2

    def open_model(ref: ModelRef) -> ModelFile:
        opened.append(ref.name)
        return ModelFile(files[ref.name])

    engine = Engine(open_model, slots=1, turns=turns)
    engine.start()
    plain = {"steps": STEPS, "cfg_scale": 1.0}

    def client(number: int) -> list[np.ndarray]:
        return [pixels(engine, "one", networks=SETS[number % 2], **plain) for _ in range(rounds)]

    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(client, range(8)))
        changes, steps = engine.status().weight_changes, 8 * rounds * STEPS
        assert changes * 100 <= 6 * steps, f"{changes} changes in {steps} steps"
        assert max(turns.waits) <= turns.age_limit
        assert sorted(opened) == ["a", "b", "one"]
        for number, networks in enumerate(SETS):
            alone = pixels(engine, "one", networks=networks, **plain)
            assert all(far(alone, each) <= 1 for made in found[number::2] for each in made)
        assert far(found[0][0], found[1][0]) > 10
    finally:
        engine.close(30.0)


def test_the_second_passes_prompts_are_read_under_the_first_passes_networks_where_the_option_says_so(
    files: dict[str, Path],
) -> None:
    engine = Engine(lambda ref: ModelFile(files[ref.name]))
    engine.start()
    reading, painting = used("a", 1.0, 0.0), used("b", 1.0, 0.7)
    early = EngineSettings(randn_source="CPU", hires_fix_use_firstpass_conds=True)

    def two_passes(*networks: NetworkUse, checkpoint: ModelRef | None = None, **changes: Any) -> np.ndarray:
        second = HiresPass(
            size=(96, 96),
            upscaled=(96, 96),
            upscaler="Latent",
            steps=2,
            denoising_strength=0.7,
            sampler="Euler",
            scheduler="Automatic",
            prompt="a blue star",
            negative_prompt="",
            networks=networks,
            checkpoint=checkpoint,
        )
        return pixels(engine, "one", networks=(reading,), hires=second, **changes)

    try:
        made = two_passes(painting, settings=early)
        assert far(made, two_passes(reading, used("b", 0.0, 0.7))) <= 1
        assert far(made, two_passes(painting)) > 2
        assert far(made, two_passes(reading, settings=early)) > 2, "its own networks still paint"
        own = {"checkpoint": reference("one")}
        assert far(two_passes(painting, **own, settings=early), two_passes(painting, **own)) <= 1
    finally:
        engine.close(30.0)


def test_after_networks_the_weights_are_the_files_again_and_order_makes_no_other_set(
    files: dict[str, Path],
) -> None:
    engine = Engine(lambda ref: ModelFile(files[ref.name]), slots=1)
    engine.start()
    try:
        before = pixels(engine, "one")
        changed = pixels(engine, "one", networks=SETS[1])
        count = engine.status().weight_changes
        assert np.array_equal(changed, pixels(engine, "one", networks=SETS[1][::-1]))
        assert engine.status().weight_changes == count
        assert np.array_equal(before, pixels(engine, "one", networks=(used("a", 0.0),)))
        assert np.array_equal(before, pixels(engine, "one"))
        assert far(before, changed) > 10
    finally:
        engine.close(30.0)


def test_a_network_that_nobody_can_read_is_told_and_the_picture_made(files: dict[str, Path]) -> None:
    engine = Engine(lambda ref: ModelFile(files[ref.name]), open_network=lambda use, path: None)
    engine.start()
    try:
        told = engine.submit(part("one", networks=SETS[0])).result(PATIENCE)
        assert "a.safetensors was left out" in told.warnings[0]
        assert "extension" in told.warnings[0]
        assert np.array_equal(told.pictures[0].pixels.astype(int), pixels(engine, "one"))
    finally:
        engine.close(30.0)


# --- SDXL.

_IN = "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_v"
_OUT = "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.2"
_LAYER = "encoder.layers.1.self_attn.q_proj"
_TOP = "encoder.layers.1.mlp.fc1"
KOHYA = {
    (UNET, _IN): "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_v",
    (UNET, _OUT): "lora_unet_output_blocks_2_1_transformer_blocks_0_ff_net_2",
    (TEXT, _LAYER): "lora_te1_text_model_encoder_layers_1_self_attn_q_proj",
    (TEXT_2, _TOP): "lora_te2_text_model_encoder_layers_1_mlp_fc1",
    (TEXT_2, "text_projection"): "lora_te2_text_projection",
}
FORMS = {
    "kohya after LDM": KOHYA,
    "kohya after diffusers": KOHYA
    | {
        (UNET, _IN): "lora_unet_" + _IN.replace(".", "_"),
        (UNET, _OUT): "lora_unet_" + _OUT.replace(".", "_"),
    },
    "LDM": KOHYA
    | {
        (UNET, _IN): "diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_v",
        (UNET, _OUT): "diffusion_model.output_blocks.2.1.transformer_blocks.0.ff.net.2",
    },
    "diffusers": {
        (UNET, _IN): f"unet.{_IN}",
        (UNET, _OUT): f"unet.{_OUT}",
        (TEXT, _LAYER): f"text_encoder.text_model.{_LAYER}",
        (TEXT_2, _TOP): f"text_encoder_2.text_model.{_TOP}",
        (TEXT_2, "text_projection"): "text_encoder_2.text_projection",
    },
}


class Sdxl:
    """An engine with SDXL's narrow twin, LoRA for it in every form, the twin with these in its file, and
    textual inversions that stand for a word it knows.
    """

    def __init__(self, place: Path) -> None:
        made = twin("sdxl", 3)
        self._files = {"xl": made.save(place / "xl.safetensors")}
        layers = {at: _layer(made.modules[at[0]], at[1]) for at in KOHYA}
        for form, names in FORMS.items():
            shaped = [(name, layers[at].weight.shape) for at, name in names.items()]
            self._files[form] = lora_file(place / f"{form}.safetensors", shaped, 9)
        self._words(place, made.modules)
        added = load_file(self._files["kohya after LDM"])
        for at, layer in layers.items():
            layer.weight.data += 0.7 * product(added, KOHYA[at])
        self._files["written"] = made.save(place / "written.safetensors")
        self.engine = Engine(lambda ref: ModelFile(self._files[ref.name]))
        self.engine.start()

    def _words(self, place: Path, modules: dict[str, Any]) -> None:
        circle = 7117
        first, second = (
            modules[each].get_input_embeddings().weight[circle][None].clone() for each in (TEXT, TEXT_2)
        )
        both = {"clip_l": first, "clip_g": second}
        files = {"zork": both, "half": both | {"clip_g": second + 3.0}, "narrow": {"emb_params": first}}
        bundled = {f"bundle_emb.zork.{key}": tensor for key, tensor in both.items()}
        for name, tensors in (files | {"bundle": bundled}).items():
            self._files[name] = place / f"{name}.safetensors"
            save_file(tensors, self._files[name])

    def pixels(self, name: str, **changes: Any) -> np.ndarray:
        return pixels(self.engine, name, steps=2, **changes)


def _layer(module: Any, name: str) -> Any:
    return module.get_submodule(name if hasattr(module, name.partition(".")[0]) else f"text_model.{name}")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdxl]:
    made = Sdxl(tmp_path_factory.mktemp("sdxl"))
    yield made
    made.engine.close(30.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_lora_for_sdxl_in_any_names_acts_on_the_unet_and_both_encoders(sdxl: Sdxl, form: str) -> None:
    written = sdxl.pixels("written")
    assert far(sdxl.pixels("xl", networks=(used(form, 0.7),)), written) <= 1
    assert far(sdxl.pixels("xl", networks=(used(form, 0.0, 0.7),)), written) > 1
    assert far(sdxl.pixels("xl", networks=(used(form, 0.7, 0.0),)), written) > 1


def embedding(name: str) -> Any:
    return reference(name, ModelKind.EMBEDDING)


def test_an_embedding_for_sdxl_stands_in_both_encoders(sdxl: Sdxl) -> None:
    known = sdxl.pixels("xl", prompt="a red circle")
    assert far(sdxl.pixels("xl", prompt="a red zork", embeddings=(embedding("zork"),)), known) <= 1
    assert far(sdxl.pixels("xl", prompt="a red half", embeddings=(embedding("half"),)), known) > 1


def test_an_embedding_that_came_with_a_lora_stands_in_both_encoders(sdxl: Sdxl) -> None:
    known = sdxl.pixels("xl", prompt="a red circle")
    assert far(sdxl.pixels("xl", prompt="a red zork", networks=(used("bundle"),)), known) <= 1
    assert far(sdxl.pixels("xl", prompt="a red zork"), known) > 1


def test_an_embedding_for_one_encoder_alone_is_read_as_words_and_said(sdxl: Sdxl) -> None:
    asked = part("xl", steps=2, prompt="a red narrow", embeddings=(embedding("narrow"),))
    made = sdxl.engine.submit(asked).result(PATIENCE)
    assert "The embedding narrow is 32 wide" in made.warnings[0]
    assert far(made.pictures[0].pixels.astype(int), sdxl.pixels("xl", prompt="a red narrow")) <= 1
