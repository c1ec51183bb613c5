"""Hypernetworks: small layers before the keys and values of every attention, adding to what is attended to.

A stored hypernetwork is a safetensors file with the tensors `<width>.<k|v>.linear.<index>.weight` and
`.bias`, as the pickled form has them per width, and the pickled form's other members as JSON in the metadata
entry `hypernetwork`: layer_structure, activation_func, is_layer_norm, activate_output, use_dropout,
last_layer_dropout, dropout_structure, name, step and what else it had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from atelier.contract.errors import ModelUnusable
from workers.engine.loader.checkpoint import ModelFile
from workers.engine.networks.reading import tensors_of

METADATA = "hypernetwork"
"""The metadata entry that holds the members that are no tensors."""
_KEY = re.compile(r"(\d{1,6})\.([kv])\.(?:linear\.(\d{1,6})|linear(\d))\.(weight|bias)")
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "leakyrelu": F.leaky_relu,
    "elu": F.elu,
    "swish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "celu": F.celu,
    "gelu": F.gelu,
    "glu": F.glu,
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "relu6": F.relu6,
    "rrelu": F.rrelu,
    "selu": F.selu,
    "silu": F.silu,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
}
"""By the names of torch's modules in lower case, but "swish", which the peer takes for Hardswish."""
_NONE = ("linear", None)


@dataclass(frozen=True, eq=False)
class Layer:
    """One step of a hypernetwork's chain: a linear layer or a layer norm, and the activation behind it."""

    weight: torch.Tensor
    bias: torch.Tensor
    norm: bool = False
    activation: str | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.to(x), self.bias.to(x)
        out = F.layer_norm(x, weight.shape, weight, bias) if self.norm else F.linear(x, weight, bias)
        return _ACTIVATIONS[self.activation](out) if self.activation else out


Chain = tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Hypernetwork:
    """A hypernetwork in host memory: for each width of what is attended to its chains for keys and for
    values.
    """

    id: str
    name: str
    file: str
    chains: Mapping[int, tuple[Chain, Chain]]

    @property
    def size(self) -> int:
        """Bytes in host memory."""
        layers = [each for pair in self.chains.values() for chain in pair for each in chain]
        return sum(each.weight.nbytes + each.bias.nbytes for each in layers)

    def on(self, device: torch.device, dtype: torch.dtype) -> Hypernetwork:
        """The same with its tensors on `device`."""
        return Hypernetwork(
            self.id,
            self.name,
            self.file,
            {width: (_on(k, device, dtype), _on(v, device, dtype)) for width, (k, v) in self.chains.items()},
        )


def _on(chain: Chain, device: torch.device, dtype: torch.dtype) -> Chain:
    return tuple(
        Layer(each.weight.to(device, dtype), each.bias.to(device, dtype), each.norm, each.activation)
        for each in chain
    )


def apply(chain: Chain, x: torch.Tensor, strength: float) -> torch.Tensor:
    """x + strength x chain(x); x is [..., width]."""
    out = x
    for layer in chain:
        out = layer(out)
    return x + out * strength


def read_hypernetwork(model: ModelFile, network_id: str, name: str) -> Hypernetwork:
    """The hypernetwork in a stored file (the module's text). Raises ModelUnusable for what is none or is made
    of unknown parts.
    """
    file = model.called
    tensors, metadata = tensors_of(model)
    members = _members(metadata, file)
    layers: dict[tuple[int, str], dict[int, dict[str, torch.Tensor]]] = {}
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise ModelUnusable(f"{file} is no hypernetwork: it has the tensor {key[:80]!r}.")
        # the oldest files call the two layers linear1 and linear2
        index = int(found[3]) if found[3] is not None else int(found[4]) - 1
        place = layers.setdefault((int(found[1]), found[2]), {}).setdefault(index, {})
        place[found[5]] = tensor.float()
    widths = sorted({width for width, _ in layers})
    if not widths:
        raise ModelUnusable(f"{file} is no hypernetwork: it has no tensors.")
    chains = {}
    for width in widths:
        pair = [_chain(layers.get((width, side), {}), members, f"{file}: {width}.{side}") for side in "kv"]
        for chain in pair:
            _check_chain(chain, width, f"{file}: width {width}")
        chains[width] = (pair[0], pair[1])
    return Hypernetwork(network_id, name, file, chains)


def _members(metadata: Mapping[str, str], file: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(METADATA) or "{}")
    except (ValueError, RecursionError) as error:
        raise ModelUnusable(f"{file}: the description of the hypernetwork is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelUnusable(f"{file}: the description of the hypernetwork is no table.")
    activation = found.get("activation_func")
    if activation not in _NONE and str(activation).lower() not in _ACTIVATIONS:
        raise ModelUnusable(f"{file} has an activation function that is not known: {str(activation)[:40]!r}.")
    return found


def _chain(found: Mapping[int, Mapping[str, torch.Tensor]], members: Mapping[str, Any], place: str) -> Chain:
    """The tensors of one chain in order. Layer norms are told by their weights' shape; what has no weights
    (activation, dropout) leaves a gap in the numbers, which the description explains.
    """
    if not found or any(set(each) != {"weight", "bias"} for each in found.values()):
        raise ModelUnusable(f"{place} of the hypernetwork is incomplete.")
    activation = members.get("activation_func")
    name = None if activation in _NONE else str(activation).lower()
    ordered = [found[index] for index in sorted(found)]
    linear = [number for number, each in enumerate(ordered) if each["weight"].ndim == 2]
    activate_output = bool(members.get("activate_output", True))
    chain = []
    for number, each in enumerate(ordered):
        last = number == linear[-1] if linear else True
        active = each["weight"].ndim == 2 and name is not None and (activate_output or not last)
        chain.append(Layer(each["weight"], each["bias"], each["weight"].ndim == 1, name if active else None))
    return tuple(chain)


def _check_chain(chain: Chain, width: int, place: str) -> None:
    """Raise ModelUnusable unless the chain's layers fit each other and what they are added to."""
    try:
        apply(chain, torch.empty(1, 1, width, device="meta"), 1.0)
    except RuntimeError as error:
        raise ModelUnusable(f"{place} of the hypernetwork has layers that do not fit each other.") from error


def bind(module: torch.nn.Module, uses: Sequence[tuple[Hypernetwork, float]]) -> list[Callable[[], None]]:
    """Let the hypernetworks, one after the other, stand before `to_k` and `to_v` of every attention in
    `module`. Gives what takes each away again.
    """
    undo: list[Callable[[], None]] = []
    for name, layer in module.named_modules():
        side = {"to_k": 0, "to_v": 1}.get(name.rpartition(".")[2])
        if side is not None and uses:
            undo.append(layer.register_forward_pre_hook(_before(uses, side)).remove)
    return undo


def _before(
    uses: Sequence[tuple[Hypernetwork, float]], side: int
) -> Callable[[torch.nn.Module, tuple[torch.Tensor]], tuple[torch.Tensor]]:
    def change(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (x,) = inputs
        for network, strength in uses:
            chains = network.chains.get(int(x.shape[-1]))
            if chains is not None:
                x = apply(chains[side], x, strength)
        return (x,)

    return change
