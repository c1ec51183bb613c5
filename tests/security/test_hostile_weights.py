"""Model files whose tensors lie: each is refused by its name, soon, and the worker goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier import modelfile
from atelier.contract.errors import LimitExceeded, ModelUnusable
from atelier.contract.models import ModelKind
from atelier.contract.parts import NetworkUse
from tests.engine_parts import reference
from tests.narrow import twin
from workers.engine.loader import sidecar
from workers.engine.loader.checkpoint import ModelFile, linear_alphas, read_checkpoint, read_vae
from workers.engine.loader.embeddings import read_embedding
from workers.engine.networks.fitting import complaints
from workers.engine.networks.hypernetwork import read_hypernetwork
from workers.engine.networks.reading import Network, read_network
from workers.engine.preview import fit
from workers.engine.text.encoder import TextOptions, encode
from workers.runtime.extensions import Extensions

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer."
NAN = float("nan")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The tensors of a whole checkpoint."""
    return load_file(twin("sd1").save(tmp_path_factory.mktemp("sound") / "sound.safetensors"))


def saved(folder: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> ModelFile:
    """A file that is stored by its hash and called x.safetensors."""
    path = folder / ("0" * 64)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata or None)
    return ModelFile(path, name="x.safetensors")


LIES: dict[str, Callable[[Tensors], Tensors]] = {
    "a block far away": lambda _: {f"{UNET}input_blocks.999999999.0.weight": torch.ones(1)},
    "a block without a number": lambda _: {f"{UNET}input_blocks.{'9' * 5000}.0.weight": torch.ones(1)},
    "a layer far away": lambda _: {f"{TEXT}text_model.encoder.layers.99999999.mlp.fc1.weight": torch.ones(1)},
    "a transformer far away": lambda _: {
        f"{UNET}middle_block.1.transformer_blocks.88888888.norm1.weight": torch.ones(1)
    },
    "a level far away": lambda _: {"first_stage_model.encoder.down.77777777.x": torch.ones(1)},
    "a width that norms do not divide": lambda found: {
        key: torch.ones(2, 2, 1, 1) if tensor.ndim == 4 else tensor
        for key, tensor in found.items()
        if key.startswith("first_stage_model.")
    },
    "a vocabulary of one dimension": lambda _: {
        f"{TEXT}text_model.embeddings.position_embedding.weight": torch.ones(0, 2**40)
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_lies_about_its_networks_is_refused_by_name(
    tmp_path: Path, sound: Tensors, lie: str
) -> None:
    with pytest.raises(ModelUnusable, match=r"^x\.safetensors"):
        read_checkpoint(saved(tmp_path, sound | LIES[lie](sound)), "it")


def test_a_vae_of_impossible_sizes_is_refused_by_name(tmp_path: Path, sound: Tensors) -> None:
    with pytest.raises(ModelUnusable, match=r"^x\.safetensors has a"):
        read_vae(saved(tmp_path, LIES["a width that norms do not divide"](sound)), "it")


@pytest.mark.parametrize(
    "stored",
    [
        torch.ones(1000).to(torch.float8_e4m3fn),
        torch.linspace(1.0, 0.1, 1000).to(torch.bfloat16),
        torch.zeros(1000, dtype=torch.int8),
        torch.full((1000,), NAN),
        torch.ones(1),
        torch.linspace(0.1, 0.9, 1000),
    ],
)
def test_a_schedule_that_is_none_gives_way_to_the_families_own(
    tmp_path: Path, sound: Tensors, stored: torch.Tensor
) -> None:
    read = read_checkpoint(saved(tmp_path, sound | {"alphas_cumprod": stored}), "it")
    assert torch.equal(read.alphas_cumprod, linear_alphas(sidecar.Sidecar()))


def test_a_schedule_that_falls_is_the_files_own(tmp_path: Path, sound: Tensors) -> None:
    own = torch.linspace(0.99, 0.0, 1000)
    read = read_checkpoint(saved(tmp_path, sound | {"alphas_cumprod": own}), "it")
    assert torch.equal(read.alphas_cumprod, own)


def merging(levels: int) -> str:
    """Tables that each merge the one before ten times: 10 ** levels entries."""
    merged = (
        f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}" for level in range(1, levels)
    )
    return "\n".join(["a0: &a0 {x: 1}", *merged])


@pytest.mark.parametrize(
    "text",
    [
        merging(30),
        "[" * 20_000,
        "model: {params: {timesteps: .inf}}",
        "model: {params: {timesteps: 999999999999}}",
        "model: {params: {scale_factor: .nan}}",
        "model: {params: {linear_start: -1}}",
        "model: {params: {unet_config: {params: {num_heads: 99999999999999999999}}}}",
        "!!python/object/apply:os.system [id]",
    ],
)
def test_a_hostile_configuration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ModelUnusable, match=r"beside x\.safetensors cannot be read"):
        sidecar.read(text, "x.safetensors")


def test_a_configuration_of_empty_lines_is_searched_in_one_pass() -> None:
    header = modelfile.Header({}, {}, 0)
    config = "parameterization" + "\n" * 2**20
    assert modelfile.predicts_velocity(header, config) is False
    assert modelfile.predicts_velocity(header, f'{config}  parameterization: "v"  # yes\r\n')


def lora(**parts: torch.Tensor) -> Tensors:
    whole = {"lora_up.weight": torch.ones(4, 2), "lora_down.weight": torch.ones(2, 4)}
    named = {name.replace("__", "."): tensor for name, tensor in parts.items()}
    return {f"lora_unet_x.{name}": tensor for name, tensor in (whole | named).items()}


@pytest.mark.parametrize(
    "tensors",
    [
        lora(alpha=torch.ones(7)),
        lora(alpha=torch.ones(0)),
        lora(alpha=torch.tensor(NAN)),
        lora(lora_down__weight=torch.full((2, 4), float("inf"))),
        lora(lora_down__weight=torch.tensor(1.0), alpha=torch.tensor(1.0)),
        lora(lora_up__weight=torch.ones(4, 0), lora_down__weight=torch.ones(0, 4), alpha=torch.tensor(1.0)),
        {"lora_unet_x.weight": torch.ones(5), "lora_unet_x.on_input": torch.ones(9)},
    ],
)
def test_a_network_of_impossible_tensors_is_refused_by_name(tmp_path: Path, tensors: Tensors) -> None:
    with pytest.raises(ModelUnusable, match=r"^x\.safetensors is damaged"):
        read_network(saved(tmp_path, tensors), "id", "x")


def test_an_embedding_of_no_numbers_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"^x\.safetensors is damaged: 'emb_params'"):
        read_embedding(saved(tmp_path, {"emb_params": torch.tensor([[1.0, NAN]])}), "id", "x")


def hypernetwork(width: object = 8, **shapes: torch.Tensor) -> Tensors:
    sound = {"linear.0.weight": torch.ones(8, 8), "linear.0.bias": torch.ones(8)}
    parts = sound | {name.replace("__", "."): tensor for name, tensor in shapes.items()}
    return {f"{width}.{side}.{name}": tensor for side in "kv" for name, tensor in parts.items()}


@pytest.mark.parametrize(
    ("tensors", "members"),
    [
        (hypernetwork(linear__0__weight=torch.ones(8, 5)), "{}"),
        (hypernetwork(linear__1__weight=torch.ones(8, 9), linear__1__bias=torch.ones(8)), "{}"),
        (hypernetwork(width=9), "{}"),
        (hypernetwork(width="9" * 5000), "{}"),
        (hypernetwork(linear__0__bias=torch.full((8,), NAN)), "{}"),
        (hypernetwork(), "[" * 50_000),
    ],
)
def test_a_hypernetwork_whose_layers_do_not_fit_is_refused_by_name(
    tmp_path: Path, tensors: Tensors, members: str
) -> None:
    with pytest.raises(ModelUnusable, match=r"^x\.safetensors"):
        read_hypernetwork(saved(tmp_path, tensors, hypernetwork=members), "id", "x")


def test_what_is_said_of_a_network_names_its_file_and_not_its_hash(tmp_path: Path, sound: Tensors) -> None:
    tensors = lora() | {"lora_unet_x.strange": torch.ones(1)}
    kind = ModelKind.LORA
    use = NetworkUse(
        model=reference("cat", kind).model_copy(update={"filename": "cat.safetensors"}), te=1, unet=1
    )
    network = Extensions().open_network(use, saved(tmp_path, tensors).path)
    assert isinstance(network, Network)
    weights = read_checkpoint(saved(tmp_path, sound), "it")
    told = complaints(network, [weights.unet])
    assert told
    assert all(each.startswith("cat.safetensors: ") for each in told)


def test_a_prompt_of_thousands_of_chunks_is_refused_before_it_is_encoded() -> None:
    with pytest.raises(LimitExceeded, match="2,001 chunks"):
        encode([], "sd1", "a BREAK " * 2_000 + "a", TextOptions(), "cpu")


def test_an_autoencoder_that_makes_no_numbers_is_told_as_such() -> None:
    with pytest.raises(ModelUnusable, match="SD VAE"):
        fit(lambda latents: torch.full((len(latents), 3, 64, 64), NAN), 4)
