"""Where the pieces of a network belong in given weights, and what of it they have no place for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from workers.engine.loader.checkpoint import Weights
from workers.engine.networks.kinds import Misfit, Piece
from workers.engine.networks.naming import flat, modules_of
from workers.engine.networks.reading import Network


@dataclass(frozen=True)
class Fit:
    """`pieces` by the path of the module they change; `placed` the file's names of these and of the
    `misfits`, whose shapes do not fit (file's name -> what was found).
    """

    pieces: Mapping[str, Piece]
    placed: frozenset[str]
    misfits: Mapping[str, str]

    @property
    def additive(self) -> bool:
        """Whether the order of this network among others makes no difference."""
        return all(piece.additive for piece in self.pieces.values())


_FOUND: WeakKeyDictionary[Network, WeakKeyDictionary[Weights, Fit]] = WeakKeyDictionary()
"""Remembered as long as both are in host memory."""


def fit(network: Network, weights: Weights) -> Fit:
    """The network's fit to `weights`, found once."""
    remembered = _FOUND.setdefault(network, WeakKeyDictionary())
    known = remembered.get(weights)
    if known is None:
        known = remembered[weights] = _fit(network, weights)
    return known


def _fit(network: Network, weights: Weights) -> Fit:
    modules = modules_of(weights)
    pieces: dict[str, Piece] = {}
    misfits: dict[str, str] = {}
    placed = set()
    for name, piece in network.pieces.items():
        module = modules.get(flat(name))
        if module is None:
            continue
        placed.add(name)
        fault = _fault(piece, module, weights)
        if fault is None:
            pieces[module] = piece
        else:
            misfits[name] = fault
    return Fit(pieces, frozenset(placed), misfits)


def _fault(piece: Piece, module: str, weights: Weights) -> str | None:
    """What does not fit of a piece; the shapes are tried without any numbers."""
    weight, bias = weights.tensors[f"{module}.weight"], weights.tensors.get(f"{module}.bias")
    if piece.bias is not None and (bias is None or piece.bias.numel() != bias.numel()):
        return "its bias has no place there"
    try:
        piece.delta(torch.empty(weight.shape, device="meta"))
    except (Misfit, RuntimeError, IndexError) as error:
        return str(error).split("\n", 1)[0][:120]
    return None


def complaints(network: Network, all_weights: Sequence[Weights]) -> list[str]:
    """What is to be told of a network that is used with these weights (a checkpoint's networks): tensors of
    no known kind, modules they do not have, shapes that do not fit.
    """
    fits = [fit(network, each) for each in all_weights]
    placed = frozenset().union(*(each.placed for each in fits))
    told = []
    unknown = [name for name in network.pieces if name not in placed]
    if unknown:
        told.append(
            f"{network.file}: {len(unknown)} of its {len(network.pieces)} modules are not in this checkpoint "
            f"and were left out, first {unknown[0]!r}."
        )
    misfits = {name: fault for each in fits for name, fault in each.misfits.items()}
    if misfits:
        name, fault = next(iter(misfits.items()))
        told.append(
            f"{network.file}: {len(misfits)} of its modules have shapes that do not fit this checkpoint and "
            f"were left out, first {name!r} ({fault}). It may be made for another family."
        )
    if network.strange:
        told.append(
            f"{network.file}: {len(network.strange)} of its tensors are of no kind that is known and were "
            f"left out, first {network.strange[0]!r}."
        )
    return told
