"""Reading checkpoints: every family told by its tensors, each of them where it belongs, folders as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier import modelfile
from atelier.contract.errors import ModelUnusable
from tests.narrow import twin
from workers.engine.loader.architecture import TextShape
from workers.engine.loader.checkpoint import ModelFile, read_checkpoint
from workers.engine.loader.diffusers_layout import TEXT, TEXT_2, UNET, VAE, single_file
from workers.engine.models import Models

FAMILIES = ("sd1", "sd2", "sdxl", "sdxl-refiner")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_as_one_file_holds_the_same_networks(family: str, tmp_path: Path) -> None:
    made = twin(family)
    path = made.save(tmp_path / "twin.safetensors")
    assert modelfile.family(modelfile.read_header(path)) == family
    read = read_checkpoint(ModelFile(path), "it")
    assert read.family == family
    given = made.parts()
    texts = [given[part] for part in (TEXT, TEXT_2) if part in given]
    for weights, tensors in ((read.unet, given[UNET]), (read.vae, given[VAE])):
        assert weights.tensors.keys() == tensors.keys()
        assert all(torch.equal(weights.tensors[key], tensors[key]) for key in tensors)
    for weights, tensors in zip(read.texts, texts, strict=True):
        flat = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items()}
        assert all(torch.equal(weights.tensors[key], flat[key]) for key in flat if "position_ids" not in key)
    assert len({weights.id for weights in read.texts}) == len(read.texts)


def test_the_published_layer_that_sd2_does_not_read_is_in_the_file(tmp_path: Path) -> None:
    made = twin("sd2")
    read = read_checkpoint(ModelFile(made.save(tmp_path / "twin.safetensors")), "it")
    assert isinstance(read.text.shape, TextShape)
    assert read.text.shape.layers == made.modules[TEXT].config.num_hidden_layers + 1


def test_what_training_left_in_a_file_is_not_read(tmp_path: Path) -> None:
    path = twin("sd1").save(
        tmp_path / "twin.safetensors",
        **{
            "model_ema.decay": torch.ones(()),
            "model_ema.diffusion_modeloutblocks": torch.ones(3),
            "betas": torch.ones(1000),
            "optimizer.state.0": torch.ones(2),
            "first_stage_model.loss.logvar": torch.zeros(()),
            "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        },
    )
    assert read_checkpoint(ModelFile(path), "it").family == "sd1"


@pytest.mark.parametrize(
    "stranger",
    [
        "model.diffusion_model.adapter.weight",
        "first_stage_model.decoder.temporal.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.gate.weight",
    ],
)
def test_an_unknown_tensor_of_a_network_is_refused_by_name(stranger: str, tmp_path: Path) -> None:
    path = twin("sd1").save(tmp_path / "strange.safetensors", **{stranger: torch.ones(2)})
    with pytest.raises(ModelUnusable, match=r"strange\.safetensors") as refused:
        read_checkpoint(ModelFile(path), "it")
    assert stranger.rpartition("model.")[2] in str(refused.value)


def test_older_files_lack_a_level_in_the_names_of_their_text_encoder(tmp_path: Path) -> None:
    path = twin("sd1").save(tmp_path / "new.safetensors")
    old = {key.replace(".text_model.", "."): tensor for key, tensor in load_file(path).items()}
    save_file(old, tmp_path / "old.safetensors")
    new, read = (
        read_checkpoint(ModelFile(tmp_path / f"{name}.safetensors"), name) for name in ("new", "old")
    )
    assert read.text.tensors.keys() == new.text.tensors.keys()


def test_a_family_that_the_tensors_deny_is_refused(tmp_path: Path) -> None:
    read = read_checkpoint(ModelFile(twin("sd1").save(tmp_path / "mine.safetensors")), "it")
    with pytest.raises(ModelUnusable, match="marked as sdxl, but its tensors are those of sd1"):
        Models.of(read, None, family="sdxl")
    with pytest.raises(ModelUnusable, match="marked as sd1-inpaint, but its tensors are those of sd1"):
        Models.of(read, None, family="sd1-inpaint")
    assert Models.of(read, None, family="sd1-v").prediction.velocity
    assert not Models.of(read, None, family="sd1").prediction.velocity


@pytest.mark.parametrize(
    ("channels", "velocity", "family"),
    [(9, False, "sd2-inpaint"), (8, False, "sd2-pix2pix"), (4, True, "sd2-v"), (5, False, "sd2-depth")],
)
def test_variants_are_told_by_channels_and_metadata(
    channels: int, velocity: bool, family: str, tmp_path: Path
) -> None:
    path = twin("sd2", channels=channels, velocity=velocity).save(tmp_path / "twin.safetensors")
    header = modelfile.read_header(path)
    assert modelfile.family(header) == family
    assert modelfile.family(header, "model:\n  params:\n    parameterization: v\n").endswith("-v")  # type: ignore[union-attr]
    assert not modelfile.family(header, "model:\n  params:\n    parameterization: eps\n").endswith("-v")  # type: ignore[union-attr]
    assert read_checkpoint(ModelFile(path), "it").v_prediction is velocity


def test_a_folder_that_one_file_cannot_express_is_refused() -> None:
    made = twin("sd2")
    other_heads = {**made.configs, UNET: {**made.configs[UNET], "attention_head_dim": [4, 4, 4, 4]}}
    with pytest.raises(ModelUnusable, match="folder mine has a UNet with"):
        single_file("mine", made.parts(), other_heads)
    with pytest.raises(ModelUnusable, match="folder mine scales its latents"):
        single_file("mine", made.parts(), {**made.configs, VAE: {"scaling_factor": 0.3}})
    with pytest.raises(ModelUnusable, match="folder mine lacks the tensors of its vae"):
        single_file("mine", {UNET: made.parts()[UNET]}, made.configs)


def test_attention_of_an_older_library_is_understood() -> None:
    made = twin("sd1")
    parts = made.parts()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older: dict[str, torch.Tensor] = {}
    for key, tensor in parts[VAE].items():
        for new, old in names.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        older[key] = tensor
    assert older.keys() != parts[VAE].keys()
    written = single_file("old", {**parts, VAE: older}, made.configs).tensors
    assert written.keys() == single_file("new", parts, made.configs).tensors.keys()
