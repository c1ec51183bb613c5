"""Hypernetworks with every choice their trainer leaves, against chains of torch's own modules."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from atelier.contract.errors import ModelUnusable
from workers.engine.loader.checkpoint import ModelFile
from workers.engine.networks.hypernetwork import apply, bind, read_hypernetwork

WIDTH = 6
MODULES = {
    "relu": torch.nn.ReLU,
    "leakyrelu": torch.nn.LeakyReLU,
    "elu": torch.nn.ELU,
    "swish": torch.nn.Hardswish,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "mish": torch.nn.Mish,
    "softsign": torch.nn.Softsign,
    "GELU": torch.nn.GELU,
    "SiLU": torch.nn.SiLU,
}


def chain(structure: list[float], members: dict[str, Any], seed: int) -> torch.nn.Sequential:
    """A chain as it is trained: linear layers, each followed by what `members` ask for."""
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    last = len(structure) - 2
    for number, (before, after) in enumerate(itertools.pairwise(structure)):
        layers.append(torch.nn.Linear(int(WIDTH * before), int(WIDTH * after)))
        activation = members.get("activation_func")
        if activation not in (None, "linear") and (number < last or members.get("activate_output", True)):
            layers.append(MODULES[activation]())
        if members.get("is_layer_norm"):
            layers.append(torch.nn.LayerNorm(int(WIDTH * after)))
        if members.get("use_dropout") and number < last:
            layers.append(torch.nn.Dropout(0.3))
    made = torch.nn.Sequential(*layers).eval()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.requires_grad_(False)


def stored(path: Path, chains: dict[str, torch.nn.Sequential], members: dict[str, Any]) -> Path:
    tensors = {
        f"{WIDTH}.{side}.linear.{name}": tensor
        for side, each in chains.items()
        for name, tensor in each.state_dict().items()
    }
    save_file(tensors, path, metadata={"hypernetwork": json.dumps(members)})
    return path


@pytest.mark.parametrize(
    ("structure", "members"),
    [
        ([1, 2, 1], {}),
        ([1, 2, 1], {"activation_func": "linear"}),
        *[([1, 2, 1], {"activation_func": name}) for name in MODULES],
        ([1, 2, 1], {"activation_func": "relu", "activate_output": False}),
        ([1, 2, 2, 1], {"activation_func": "mish", "is_layer_norm": True}),
        ([1, 2, 2, 1], {"activation_func": "tanh", "is_layer_norm": True, "activate_output": False}),
        ([1, 1.5, 2, 1], {"activation_func": "relu", "use_dropout": True, "activate_output": True}),
        ([1, 2, 1], {"is_layer_norm": True, "use_dropout": True, "last_layer_dropout": False}),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_a_hypernetwork_adds_what_its_chain_gives(
    tmp_path: Path, structure: list[float], members: dict[str, Any]
) -> None:
    chains = {side: chain(structure, members, seed) for seed, side in enumerate("kv")}
    path = stored(tmp_path / "made.safetensors", chains, members | {"layer_structure": structure})
    found = read_hypernetwork(ModelFile(path), "id", "made")
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(4))
    for ours, side in zip(found.chains[WIDTH], "kv", strict=True):
        torch.testing.assert_close(apply(ours, x, 0.6), x + 0.6 * chains[side](x))


def test_several_stand_one_after_the_other_before_keys_and_values_and_are_taken_away(tmp_path: Path) -> None:
    chains = {side: chain([1, 2, 1], {}, seed) for seed, side in enumerate("kv")}
    found = read_hypernetwork(ModelFile(stored(tmp_path / "made.safetensors", chains, {})), "id", "made")
    attention = torch.nn.ModuleDict({each: torch.nn.Linear(WIDTH, 3) for each in ("to_q", "to_k", "to_v")})
    x = torch.randn(4, WIDTH)
    before = {name: layer(x) for name, layer in attention.items()}
    undo = bind(attention, [(found, 0.5), (found, 2.0)])
    for name, side in (("to_k", "k"), ("to_v", "v")):
        once = x + 0.5 * chains[side](x)
        expected = attention[name].forward(once + 2.0 * chains[side](once))
        torch.testing.assert_close(attention[name](x), expected)
    assert torch.equal(attention["to_q"](x), before["to_q"])
    for each in undo:
        each()
    assert all(torch.equal(layer(x), before[name]) for name, layer in attention.items())


def test_the_oldest_files_number_their_two_layers_from_one(tmp_path: Path) -> None:
    made = chain([1, 2, 1], {}, 1)
    names = {"0": "linear1", "1": "linear2"}
    tensors = {
        f"{WIDTH}.{side}.{names[name[0]]}{name[1:]}": tensor.clone()
        for side in "kv"
        for name, tensor in made.state_dict().items()
    }
    save_file(tensors, tmp_path / "old.safetensors")
    found = read_hypernetwork(ModelFile(tmp_path / "old.safetensors"), "id", "old")
    x = torch.randn(3, WIDTH)
    torch.testing.assert_close(apply(found.chains[WIDTH][0], x, 1.0), x + made(x))


@pytest.mark.parametrize(
    ("tensors", "members", "said"),
    [
        ({"6.k.linear.0.weight": torch.zeros(6, 6)}, "{}", "incomplete"),
        ({"strange": torch.zeros(1)}, "{}", "'strange'"),
        ({"6.k.linear.0.weight": torch.zeros(6, 6)}, '{"activation_func": "magic"}', "'magic'"),
        ({"6.k.linear.0.weight": torch.zeros(6, 6)}, "[", "no JSON"),
    ],
)
def test_what_is_no_hypernetwork_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], members: str, said: str
) -> None:
    save_file(tensors, tmp_path / "bad.safetensors", metadata={"hypernetwork": members})
    with pytest.raises(ModelUnusable, match=r"bad\.safetensors") as caught:
        read_hypernetwork(ModelFile(tmp_path / "bad.safetensors"), "id", "bad")
    assert said in str(caught.value)
