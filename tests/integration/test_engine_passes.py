"""The engine beyond one plain pass: hires fix, the refiner, compositions, schedules, tiling, inpainting
models, embeddings. Real networks; forwards and their rows are counted in the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier.contract.errors import InternalError, InvalidRequest, OutOfMemory, UnknownName
from atelier.contract.models import ModelKind
from atelier.contract.parts import Action, EngineSettings, HiresPass, Refiner, ResolvedPart
from atelier.vocabulary import LATENT_UPSCALERS, PIXEL_UPSCALERS, SAMPLERS
from tests.engine_parts import part, reference
from workers.engine import Engine, ModelFile, PartHandle, forward
from workers.engine.loader.checkpoint import read_checkpoint
from workers.engine.networks_at_work import NetworksAtWork
from workers.engine.rows import Context, Row
from workers.engine.slots import SlotPool
from workers.engine.upscaling import Target

PATIENCE = 120.0
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


class Seen:
    """What the networks were asked: (kind of the network, shape of its first argument) in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.shown: list[torch.Tensor] = []
        self.modules: list[int] = []
        self.heights: list[int] = []

    def __call__(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        kind = type(module).__name__
        if kind == "UNet":
            self.calls.append((kind, tuple(arguments[0].shape)))
            self.shown.append(arguments[0].clone())
            self.modules.append(id(module))
            self.heights.append(int(arguments[0].shape[2]))
        elif kind == "CLIPTextModel":
            self.calls.append((kind, ()))

    def unets(self) -> list[tuple[int, ...]]:
        """The shapes the UNets were shown."""
        return [shape for kind, shape in self.calls if kind == "UNet"]

    def rows(self) -> int:
        """Rows of all forwards."""
        return sum(shape[0] for shape in self.unets())


@pytest.fixture
def seen() -> Iterator[Seen]:
    watcher = Seen()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(watcher)
    yield watcher
    hook.remove()


@pytest.fixture(scope="module")
def files(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFile]:
    """Two trained checkpoints, two made of the first with more input channels, and two embeddings."""
    place = tmp_path_factory.mktemp("models")
    found = {name: _with_configuration(path) for name, path in zip(("one", "two"), checkpoints, strict=True)}
    for name, channels in (("inpaint", 5), ("edit", 4)):
        weights = load_file(found["one"].path)
        first = weights[FIRST]
        stream = torch.Generator().manual_seed(3)
        more = torch.randn(first.shape[0], channels, 3, 3, generator=stream).to(first) * 0.05
        weights[FIRST] = torch.cat([first, more], 1).contiguous()
        save_file(weights, place / f"{name}.safetensors")
        found[name] = ModelFile(place / f"{name}.safetensors", found["one"].config)
    width = weights[TOKENS].shape[1]
    for name, vectors in (("word", width), ("wide", width + 8)):
        save_file({"emb_params": torch.full((3, vectors), 0.5)}, place / f"{name}.safetensors")
        found[name] = ModelFile(place / f"{name}.safetensors")
    return found


def _with_configuration(path: Path) -> ModelFile:
    beside = path.with_suffix(".yaml")
    return ModelFile(path, beside.read_text() if beside.is_file() else None)


@pytest.fixture(scope="module")
def engine(files: dict[str, ModelFile]) -> Iterator[Engine]:
    made = Engine(lambda ref: files[ref.name], slots=3)
    made.start()
    yield made
    made.close(30.0)


def second(**changes: Any) -> HiresPass:
    plain: dict[str, Any] = {
        "size": (96, 128),
        "upscaled": (96, 128),
        "upscaler": "Latent",
        "steps": 3,
        "denoising_strength": 0.5,
        "sampler": "Euler",
        "scheduler": "Automatic",
        "prompt": "a red circle",
        "negative_prompt": "",
    }
    return HiresPass.model_validate(plain | changes)


def made(engine: Engine, wanted: ResolvedPart) -> list[np.ndarray]:
    return [picture.pixels for picture in engine.submit(wanted).result(PATIENCE).pictures]


def worst(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# --- Hires fix


@pytest.mark.parametrize("upscaler", [*LATENT_UPSCALERS, *PIXEL_UPSCALERS])
def test_a_second_pass_of_its_own_steps_follows_at_the_larger_size(
    engine: Engine, seen: Seen, upscaler: str
) -> None:
    [picture] = made(engine, part(hires=second(upscaler=upscaler)))
    assert picture.shape == (128, 96, 3)
    sizes = [shape[2:] for shape in seen.unets()]
    assert sizes == [(8, 8)] * 4 + [(16, 12)] * 3


def test_the_upscalers_give_different_pictures(engine: Engine) -> None:
    pictures = {
        upscaler: made(engine, part(hires=second(upscaler=upscaler)))[0].tobytes()
        for upscaler in (*LATENT_UPSCALERS, "Lanczos", "Nearest")
    }
    assert len(set(pictures.values())) == len(pictures)


def test_without_strength_the_second_pass_only_enlarges(engine: Engine, seen: Seen) -> None:
    [picture] = made(engine, part(hires=second(upscaler="Lanczos", denoising_strength=0.0)))
    assert picture.shape == (128, 96, 3)
    assert {shape[2:] for shape in seen.unets()} == {(8, 8)}


def test_what_is_larger_than_the_target_is_cut_to_its_middle(engine: Engine) -> None:
    cut = made(engine, part(hires=second(upscaled=(128, 128), size=(128, 64), denoising_strength=0.0)))[0]
    assert cut.shape == (64, 128, 3)
    numbered = torch.arange(16.0).reshape(1, 16, 1).expand(1, 16, 12)
    assert Target((96, 128), (96, 88)).middle(numbered)[0, :, 0].tolist() == [*range(2, 13)]
    assert Target((96, 128), (40, 128)).middle(numbered.mT).shape == (1, 12, 9)


def test_the_second_pass_may_have_a_sampler_a_schedule_prompts_and_a_checkpoint_of_its_own(
    engine: Engine,
) -> None:
    plain = made(engine, part(hires=second()))[0]
    for changes in (
        {"sampler": "DPM++ 2M"},
        {"scheduler": "Karras"},
        {"prompt": "a blue star"},
        {"negative_prompt": "blue"},
        {"checkpoint": reference("two")},
    ):
        assert worst(plain, made(engine, part(hires=second(**changes)))[0]) > 2, changes


def test_a_batch_with_hires_fix_is_its_single_pictures(engine: Engine) -> None:
    batch = made(engine, part(seeds=(5, 6), subseeds=(0, 0), hires=second(upscaler="None")))
    for seed, picture in zip((5, 6), batch, strict=True):
        alone = made(engine, part(seeds=(seed,), hires=second(upscaler="None")))[0]
        assert worst(alone, picture) <= 1


def test_progress_covers_both_passes_and_never_goes_back(engine: Engine) -> None:
    handle = engine.submit(part(hires=second(), seeds=(1, 2), subseeds=(0, 0)))
    steps = [handle.progress().step]
    while not handle.done():
        steps.append(handle.progress().step)
    assert steps == sorted(steps)
    handle.result(PATIENCE)
    assert handle.progress().steps == 4 + 3
    preview = handle.preview()
    assert preview is not None and preview.shape[0] >= 128


def test_an_unknown_upscaler_is_refused_by_name(engine: Engine) -> None:
    with pytest.raises(UnknownName, match="ESRGAN"):
        engine.submit(part(hires=second(upscaler="ESRGAN_4x"))).result(PATIENCE)


def test_a_second_pass_that_does_not_fit_is_refused_with_what_would(files: dict[str, ModelFile]) -> None:
    small = Engine(lambda ref: files[ref.name], memory_bytes=200 * 2**20)
    small.start()
    try:
        with pytest.raises(OutOfMemory, match="largest") as caught:
            small.submit(part(hires=second(size=(4096, 4096), upscaled=(4096, 4096)))).result(PATIENCE)
        side = caught.value.detail["side"]
        assert 64 <= side < 4096
        assert small.submit(part(width=side, height=side, steps=1)).result(PATIENCE).pictures
    finally:
        small.close(30.0)


# --- The refiner


def test_the_refiner_takes_over_at_its_share_of_the_noise(engine: Engine) -> None:
    plain, other = made(engine, part())[0], made(engine, part("two"))[0]
    at = {
        share: made(engine, part(refiner=Refiner(checkpoint=reference("two"), switch_at=share)))[0]
        for share in (0.0, 0.5, 0.999)
    }
    assert worst(at[0.0], other) <= 1  # from the first step on, its decoder too
    assert worst(at[0.5], plain) > 2 and worst(at[0.5], other) > 2
    assert worst(at[0.999], at[0.5]) > 2


@pytest.mark.parametrize(("share", "steps"), [(0.25, 3), (0.5, 2), (0.75, 1)])
def test_by_sampling_steps_the_refiner_makes_the_rest_of_them(
    engine: Engine, share: float, steps: int
) -> None:
    before = engine.status().weight_changes
    refiner = Refiner(checkpoint=reference("two"), switch_at=share, by_sampling_steps=True)
    counts: list[int] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: counts.append(id(module)) if type(module).__name__ == "UNet" else None
    )
    try:
        made(engine, part(refiner=refiner))
    finally:
        hook.remove()
    assert engine.status().weight_changes - before <= 2
    assert len(counts) == 4 and counts.count(counts[-1]) == steps


@pytest.mark.parametrize(
    ("passes", "refined"), [("first pass", [8]), ("second pass", [16]), ("both passes", [8, 16])]
)
def test_with_hires_fix_the_refiner_takes_part_where_the_option_says(
    engine: Engine, seen: Seen, passes: str, refined: list[int]
) -> None:
    refiner = Refiner(checkpoint=reference("two"), switch_at=0.3, passes=passes)  # type: ignore[arg-type]
    made(engine, part(hires=second(upscaled=(128, 128), size=(128, 128)), refiner=refiner))
    of_the_base = seen.modules[0]
    heights = {
        height for module, height in zip(seen.modules, seen.heights, strict=True) if module != of_the_base
    }
    assert sorted(heights) == refined


# --- Compositions and schedules


def test_a_composition_asks_a_row_for_each_of_its_parts(engine: Engine, seen: Seen) -> None:
    made(engine, part(prompt="a red circle AND a blue star :0.5 AND green", steps=2))
    assert seen.rows() == 2 * (3 + 1)


def test_parts_of_different_length_are_shown_together(engine: Engine, seen: Seen) -> None:
    long = "red " * 80
    made(engine, part(prompt=f"{long} AND a star", negative_prompt="", steps=1))
    assert sorted(shape[0] for shape in seen.unets()) == [1, 2]


def test_a_weight_of_nothing_takes_a_part_out_of_the_composition(engine: Engine) -> None:
    both = made(engine, part(prompt="a red circle AND a blue star :0"))[0]
    assert worst(both, made(engine, part(prompt="a red circle"))[0]) <= 1


def test_a_schedule_encodes_only_the_texts_that_come_up_and_each_once(engine: Engine, seen: Seen) -> None:
    made(engine, part(prompt="an [unheard|unseen] thing", negative_prompt="not [this:that:99]", steps=4))
    assert sum(kind == "CLIPTextModel" for kind, _ in seen.calls) == 3


def test_an_edit_changes_the_prompt_at_its_step(engine: Engine) -> None:
    plain = made(engine, part(prompt="a red circle"))[0]
    assert worst(made(engine, part(prompt="a [red:blue:99] circle"))[0], plain) <= 1
    assert worst(made(engine, part(prompt="a [red:blue:0.5] circle"))[0], plain) > 2


def test_samplers_of_second_order_count_two_steps_in_schedules(engine: Engine) -> None:
    # Heun asks 7 times in 4 steps: counted once each, a change at step 6 would never come
    plain = made(engine, part(prompt="a red circle", sampler="Heun"))[0]
    assert worst(made(engine, part(prompt="a [red:blue:5] circle", sampler="Heun"))[0], plain) > 0
    assert (
        worst(
            made(engine, part(prompt="a [red:blue:5] circle", sampler="Euler"))[0],
            made(engine, part(prompt="a red circle", sampler="Euler"))[0],
        )
        == 0
    )


def test_the_negative_prompt_knows_schedules_but_no_compositions(engine: Engine, seen: Seen) -> None:
    made(engine, part(negative_prompt="green AND blue", steps=2))
    assert seen.rows() == 2 * 2
    plain = made(engine, part(negative_prompt="a red circle", steps=8))[0]
    edited = made(engine, part(negative_prompt="[a red circle:a blue star on green:0.25]", steps=8))[0]
    assert worst(edited, plain) > 2


# --- Rows left out


def test_below_its_sigma_every_other_evaluation_does_without_the_negative_prompt(
    engine: Engine, seen: Seen
) -> None:
    made(engine, part(settings=EngineSettings(randn_source="CPU", s_min_uncond=100.0), steps=6))
    assert seen.rows() == 6 * 2 - 3


def test_all_evaluations_below_it_do_where_the_option_says_so(engine: Engine, seen: Seen) -> None:
    settings = EngineSettings(randn_source="CPU", s_min_uncond=100.0, s_min_uncond_all=True)
    made(engine, part(settings=settings, steps=6))
    assert seen.rows() == 6


def test_the_first_share_of_evaluations_does_without_it_under_skip_early(engine: Engine, seen: Seen) -> None:
    made(engine, part(settings=EngineSettings(randn_source="CPU", skip_early_cond=0.5), steps=6))
    assert seen.rows() == 6 * 2 - 4  # evaluations 0, 1, 2 and 3, whose share is 0.5 itself


# --- Tiling


def test_with_tiling_the_network_knows_no_edges(files: dict[str, ModelFile]) -> None:
    checkpoint = read_checkpoint(files["one"], "one")
    slot = SlotPool("cpu", torch.float32, 1).take(checkpoint.unet)
    width = checkpoint.text.tensors["embeddings.token_embedding.weight"].shape[1]
    stream = torch.Generator().manual_seed(5)
    latent = torch.randn(4, 16, 16, generator=stream)
    context = Context(torch.randn(77, width, generator=stream))

    def predicted(shown: torch.Tensor, tiling: bool) -> torch.Tensor:
        with torch.inference_mode():
            return forward.predict(slot, [Row(shown, 500.0, context, "one", tiling=tiling)])[0]

    rolled = latent.roll(8, dims=2)  # one pixel of the innermost level
    assert torch.allclose(predicted(rolled, True), predicted(latent, True).roll(8, dims=2), atol=1e-4)
    assert not torch.allclose(predicted(rolled, False), predicted(latent, False).roll(8, dims=2), atol=1e-2)


def test_tiled_and_plain_pictures_take_turns_without_touching_each_other(engine: Engine) -> None:
    alone = [made(engine, part(tiling=tiling, seeds=(4,)))[0] for tiling in (True, False)]
    handles = [engine.submit(part(tiling=tiling, seeds=(4,))) for tiling in (True, False)]
    for single, handle in zip(alone, handles, strict=True):
        assert worst(handle.result(PATIENCE).pictures[0].pixels, single) <= 1


# --- Inpainting models, embeddings


def test_an_inpainting_model_is_shown_a_full_mask_and_a_grey_picture(engine: Engine, seen: Seen) -> None:
    made(engine, part("inpaint", steps=2))
    assert {shape[1] for shape in seen.unets()} == {9}
    mask, rest = seen.shown[0][:, 4], seen.shown[0][:, 5:]
    assert bool((mask == 1).all())
    assert torch.equal(seen.shown[0][:, 5:], seen.shown[1][:, 5:]) and not torch.equal(rest, rest * 0)


def test_an_editing_model_is_refused_for_text_alone(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="needs one as its input"):
        engine.submit(part("edit")).result(PATIENCE)


def test_an_embeddings_name_stands_for_its_vectors(engine: Engine) -> None:
    word = reference("word", ModelKind.EMBEDDING)
    spoken = made(engine, part(prompt="a word circle", embeddings=(word,)))[0]
    assert worst(spoken, made(engine, part(prompt="a word circle"))[0]) > 2
    assert worst(spoken, made(engine, part(prompt="a WORD circle", embeddings=(word,)))[0]) <= 1


def test_an_embedding_of_another_width_is_read_as_words_and_said(engine: Engine) -> None:
    wide = reference("wide", ModelKind.EMBEDDING)
    result = engine.submit(part(prompt="a wide circle", embeddings=(wide,))).result(PATIENCE)
    assert worst(result.pictures[0].pixels, made(engine, part(prompt="a wide circle"))[0]) <= 1
    assert "wide" in result.warnings[0] and "words" in result.warnings[0]


# --- Batches


def test_an_adaptive_sampler_shares_no_forward_with_other_pictures(engine: Engine, seen: Seen) -> None:
    handles = [engine.submit(part(sampler="DPM adaptive", seeds=(seed,), steps=3)) for seed in (1, 2)] + [
        engine.submit(part(seeds=(3, 4), subseeds=(0, 0)))
    ]
    together = [handle.result(PATIENCE).pictures for handle in handles]
    assert max(shape[0] for shape in seen.unets()) == 4
    alone = made(engine, part(sampler="DPM adaptive", seeds=(1,), steps=3))[0]
    assert worst(alone, together[0][0].pixels) <= 1  # the two may be decoded together


@pytest.mark.parametrize("sampler", [each.name for each in SAMPLERS])
def test_with_every_sampler_a_batch_is_its_single_pictures_in_both_passes(
    engine: Engine, sampler: str
) -> None:
    changes: dict[str, Any] = {
        "sampler": sampler,
        "steps": 3,
        "hires": second(sampler=sampler, size=(64, 96), upscaled=(64, 96), steps=2),
    }
    batch = made(engine, part(seeds=(5, 6), subseeds=(0, 0), **changes))
    for seed, picture in zip((5, 6), batch, strict=True):
        assert worst(made(engine, part(seeds=(seed,), **changes))[0], picture) <= 2
        assert picture.std() > 0


# --- Failures and actions between two passes


def test_a_decode_that_fails_between_two_passes_fails_its_own_part_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = NetworksAtWork.between

    def broken(self: NetworksAtWork, models: Any, question: Any, finer: Any) -> torch.Tensor:
        if question.tiling:
            raise RuntimeError("the autoencoder broke")
        return real(self, models, question, finer)

    monkeypatch.setattr(NetworksAtWork, "between", broken)
    failing = engine.submit(
        part(hires=second(upscaler="Lanczos"), tiling=True, seeds=(1, 2), subseeds=(0, 0))
    )
    other = engine.submit(part(hires=second(upscaler="Lanczos")))
    with pytest.raises(InternalError, match="broke"):
        failing.result(PATIENCE)
    assert len(other.result(PATIENCE).pictures) == 1
    assert len(engine.submit(part()).result(PATIENCE).pictures) == 1


def test_a_last_decode_that_fails_fails_its_own_part_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = NetworksAtWork.decode

    def broken(self: NetworksAtWork, models: Any, latents: Any, **how: Any) -> Any:
        if how.get("tiling"):
            raise torch.OutOfMemoryError("no memory is left")
        return real(self, models, latents, **how)

    monkeypatch.setattr(NetworksAtWork, "decode", broken)
    failing, other = engine.submit(part(tiling=True)), engine.submit(part())
    with pytest.raises(OutOfMemory):
        failing.result(PATIENCE)
    assert len(other.result(PATIENCE).pictures) == 1


@pytest.mark.parametrize("action", [Action.STOP_NOW, Action.CANCEL, Action.SKIP])
def test_an_action_ends_a_picture_that_waits_for_its_autoencoder(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    real, handles = NetworksAtWork.between, list[PartHandle]()

    def acted(self: NetworksAtWork, models: Any, question: Any, finer: Any) -> torch.Tensor:
        handles[0].act(action)
        return real(self, models, question, finer)

    monkeypatch.setattr(NetworksAtWork, "between", acted)
    handles.append(engine.submit(part(hires=second(upscaler="Lanczos"), seeds=(1, 2), subseeds=(0, 0))))
    result = handles[0].result(PATIENCE)
    assert result.cancelled == (action is Action.CANCEL)
    assert all(not picture.complete for picture in result.pictures)
