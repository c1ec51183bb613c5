"""The demo checkpoint that ships: its file, and what it draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from atelier import modelfile
from workers.training.demo.evaluate import score

MODEL = Path("models/atelier-demo.safetensors")
MIB = 2**20
NETWORKS = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")


@pytest.fixture
def checkpoint(repository: Path) -> Path:
    return repository / MODEL


def test_the_file_is_half_precision_in_sd15_layout_and_small(checkpoint: Path) -> None:
    header = modelfile.read_header(checkpoint)
    assert checkpoint.stat().st_size <= 40 * MIB
    weights = {key: entry for key, entry in header.tensors.items() if key.startswith(NETWORKS)}
    assert {entry.dtype for key, entry in weights.items() if "position_ids" not in key} == {"F16"}
    assert modelfile.family(header) == "sd1"
    vocabulary = header.tensors["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"]
    assert vocabulary.shape[0] == 49408
    layers = {key.split(".")[5] for key in header.tensors if ".encoder.layers." in key}
    assert len(layers) == 12
    assert header.metadata["modelspec.prediction_type"] == "epsilon"


def test_no_level_is_narrower_than_two_channels_for_each_group(checkpoint: Path) -> None:
    header = modelfile.read_header(checkpoint)
    norms = [
        entry.shape[0]
        for key, entry in header.tensors.items()
        if key.endswith(("in_layers.0.weight", "out_layers.0.weight", "norm1.weight", "norm2.weight"))
        and key.startswith(("model.diffusion_model", "first_stage_model"))
        and len(entry.shape) == 1
    ]
    assert min(norms) >= 64


def test_the_configuration_beside_it_tells_the_same_widths(checkpoint: Path) -> None:
    header = modelfile.read_header(checkpoint)
    parameters = yaml.safe_load(checkpoint.with_suffix(".yaml").read_text())["model"]["params"]
    unet = parameters["unet_config"]["params"]
    first = header.tensors["model.diffusion_model.input_blocks.0.0.weight"]
    assert first.shape == (unet["model_channels"], unet["in_channels"], 3, 3)
    assert parameters["scale_factor"] == 0.18215
    context = header.tensors["model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"]
    assert context.shape[1] == unet["context_dim"]


@pytest.mark.long
def test_it_draws_what_it_is_asked_for_also_what_it_never_saw(checkpoint: Path) -> None:
    result = score(checkpoint)
    assert len(result.verdicts) == 64
    assert result.right >= 0.9, result.faults()
    assert result.wrongly_right <= 0.1
