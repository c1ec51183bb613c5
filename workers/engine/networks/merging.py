"""Weights with networks merged into them: named canonically, computed from the pristine weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atelier.contract import canonical
from workers.engine.loader.checkpoint import Weights
from workers.engine.networks.fitting import fit
from workers.engine.networks.hypernetwork import Hypernetwork
from workers.engine.networks.kinds import Piece
from workers.engine.networks.reading import Network

MARK = "+"
"""Between a checkpoint's name and its networks' in the name of weights."""


@dataclass(frozen=True, eq=False)
class Use:
    """A network and how strongly it acts on the weights in question; `dyn` cuts its ranks."""

    network: Network | Hypernetwork
    strength: float
    dyn: int | None = None

    @property
    def key(self) -> tuple[str, float, int | None]:
        """What it does depends on this alone."""
        return self.network.id, self.strength, self.dyn


@dataclass(frozen=True, eq=False)
class Merged(Weights):
    """The weights of `base` with networks: `tensors` are the pristine ones, which are never changed."""

    base: Weights
    pieces: dict[str, list[tuple[Piece, Use]]]
    """Module -> what changes it, in order."""
    hypernetworks: tuple[Use, ...] = ()

    @property
    def touched(self) -> set[str]:
        """Names of the tensors that differ from the checkpoint's."""
        biased = {
            module for module, uses in self.pieces.items() if any(piece.bias is not None for piece, _ in uses)
        }
        return {f"{module}.weight" for module in self.pieces} | {f"{module}.bias" for module in biased}

    def changed(self, module: str, device: torch.device) -> dict[str, torch.Tensor]:
        """The merged tensors of a module, in float32 on `device`, by their names in the weights."""
        name = f"{module}.weight"
        out = {name: self.tensors[name].to(device, non_blocking=True).to(torch.float32, copy=True)}
        for piece, use in self.pieces[module]:
            out[name] += piece.delta(out[name], use.dyn) * use.strength
            if piece.bias is not None:
                bias = f"{module}.bias"
                whole = out.get(bias, self.tensors[bias].to(device, torch.float32))
                out[bias] = whole + piece.bias.to(device, torch.float32).reshape(whole.shape) * use.strength
        return out


def merged(weights: Weights, uses: Sequence[Use]) -> Weights:
    """`weights` with networks, which are named by what they do: the same set in another order has the same
    name unless the order makes a difference. Networks that change nothing here leave no trace; `weights`
    themselves where none is left.
    """
    acting = [each for each in uses if each.strength]
    linear = [each for each in acting if isinstance(each.network, Network)]
    fits = {id(each): fit(each.network, weights) for each in linear if isinstance(each.network, Network)}
    linear = [each for each in linear if fits[id(each)].pieces]
    if all(fits[id(each)].additive for each in linear):
        linear.sort(key=lambda each: (each.network.id, each.strength, each.dyn or 0))
    hyper = tuple(each for each in acting if isinstance(each.network, Hypernetwork))
    if not linear and not hyper:
        return weights
    pieces: dict[str, list[tuple[Piece, Use]]] = {}
    for each in linear:
        for module, piece in fits[id(each)].pieces.items():
            pieces.setdefault(module, []).append((piece, each))
    digest = canonical.sha256([list(each.key) for each in (*linear, *hyper)])
    return Merged(
        f"{weights.id}{MARK}{digest}", weights.shape, weights.tensors, base=weights, pieces=pieces,
        hypernetworks=hyper,
    )  # fmt: skip


def base_of(weights_id: str) -> str:
    """The name of the weights without networks."""
    return weights_id.partition(MARK)[0]
