"""Slots: module sets whose weights are replaced in place, so that changing a checkpoint allocates and builds
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from workers.engine.blocks import ControlNet, UNet
from workers.engine.conditions import Conditions
from workers.engine.device import settle
from workers.engine.loader import networks
from workers.engine.loader.checkpoint import Weights
from workers.engine.loader.networks import Shape
from workers.engine.networks import hypernetwork
from workers.engine.networks.hypernetwork import Hypernetwork
from workers.engine.networks.merging import Merged, base_of

_SMOOTHING = 0.3


class Slot:
    """A module set of one architecture and the id of the weights in it (None while it holds none).

    A change of checkpoint copies all weights, a change of networks on the same checkpoint those that the old
    and the new set touch. `used` is the time of the last use. `conditions` remembers what the UNet made of
    prompts and timesteps, hypernetworks before its attentions included.
    """

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype, *, channels_last: bool = False) -> None:
        self.shape = shape
        self.module = networks.empty(shape, device, dtype, channels_last=channels_last)
        self.weights: str | None = None
        self.used = 0.0
        self.filled = 0.0
        self.forwards_since_fill = 0
        self.joined = False
        self.conditions = Conditions()
        self._base: str | None = None
        self._touched: set[str] = set()
        self._unhook: list[Callable[[], None]] = []
        self._costs = {"checkpoint": 0.0, "networks": 0.0}

    def cost(self, weights: str) -> float:
        """The measured duration in seconds, smoothed, of a change to `weights`: of the kind it would be."""
        return self._costs[self._kind(weights)]

    def holds_base(self, weights: str) -> bool:
        """Whether the checkpoint that `weights` are made of is in the slot, with whatever networks."""
        return base_of(weights) == self._base

    def _kind(self, weights: str) -> str:
        return "networks" if self.holds_base(weights) else "checkpoint"

    @property
    def unet(self) -> UNet:
        """The module set of a slot for UNets."""
        assert isinstance(self.module, UNet)
        return self.module

    @property
    def control(self) -> ControlNet:
        """The module set of a slot for ControlNets."""
        assert isinstance(self.module, ControlNet)
        return self.module

    def join_edges(self, joined: bool) -> None:
        """Let every convolution see the opposite edge beyond an edge (tiling), or zeros."""
        if joined == self.joined:
            return
        for module in self.module.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.padding_mode = "circular" if joined else "zeros"
        self.joined = joined

    @property
    def hooked(self) -> bool:
        """Whether hypernetworks stand before the attentions, so that these must be called as modules."""
        return bool(self._unhook)

    @property
    def size(self) -> int:
        """Bytes of the slot's weights on the device."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.module.state_dict().values())

    def fill(self, weights: Weights) -> None:
        """Copy `weights` into the modules, converting to the slot's type. The shapes were checked when the
        file was read.
        """
        where = next(self.module.parameters()).device
        settle(where)  # what was asked for before is no part of the cost
        begun = time.perf_counter()
        kind, touched = self._kind(weights.id), self._touched
        self.weights = self._base = None
        with torch.no_grad():
            tensors = self.module.state_dict()
            given = weights.tensors
            changed = _touched(weights)
            for name in (touched if kind == "networks" else tensors.keys()) - changed:
                # as it is: the device converts and orders it faster than the host
                tensors[name].copy_(given[name].to(where, non_blocking=True))
            if isinstance(weights, Merged):
                for module in weights.pieces:
                    for name, merged in weights.changed(module, where).items():
                        tensors[name].copy_(merged)
            self._hook(weights)
        settle(where)
        self._base, self._touched = base_of(weights.id), changed
        self._remember(kind, time.perf_counter() - begun)
        self.weights, self.filled, self.forwards_since_fill = weights.id, time.monotonic(), 0

    def _hook(self, weights: Weights) -> None:
        """Put the weights' hypernetworks before the attentions, in place of those that stand there."""
        while self._unhook:
            self._unhook.pop()()
        uses = weights.hypernetworks if isinstance(weights, Merged) else ()
        like = next(self.module.parameters())
        bound = [
            (each.network.on(like.device, like.dtype), each.strength)
            for each in uses
            if isinstance(each.network, Hypernetwork)
        ]
        self._unhook = hypernetwork.bind(self.module, bound)

    def _remember(self, kind: str, seconds: float) -> None:
        known = self._costs[kind]
        self._costs[kind] = seconds if not known else (1 - _SMOOTHING) * known + _SMOOTHING * seconds


def _touched(weights: Weights) -> set[str]:
    """Names of the tensors in which `weights` differ from the checkpoint's."""
    return set(weights.touched) if isinstance(weights, Merged) else set()


class SlotPool:
    """The slots of one kind of network: at most `most` per architecture, filled as they are asked for.

    `prepare` is called with a slot whenever its weights have changed. `changes` counts fills. For
    `channels_last` see `networks.empty`.
    """

    def __init__(
        self,
        device: str,
        dtype: torch.dtype,
        most: int,
        prepare: Callable[[Slot], None] | None = None,
        *,
        channels_last: bool = False,
    ) -> None:
        self._device, self._dtype, self._most = device, dtype, most
        self._prepare, self._channels_last = prepare, channels_last
        self.slots: list[Slot] = []
        self.changes = 0

    def holding(self, weights: str) -> Slot | None:
        """The slot that holds these weights, if any."""
        return next((slot for slot in self.slots if slot.weights == weights), None)

    def of_shape(self, shape: Shape) -> list[Slot]:
        """The slots of an architecture, the one unused for longest first."""
        return sorted((slot for slot in self.slots if slot.shape == shape), key=lambda slot: slot.used)

    def has_room(self, shape: Shape) -> bool:
        """Whether another slot of this architecture may be made."""
        return len(self.of_shape(shape)) < self._most

    def take(self, weights: Weights, evict: Slot | None = None) -> Slot:
        """A slot with these weights in it: the one that has them, else `evict`, a new one, or the one unused
        for longest.
        """
        slot = self.holding(weights.id)
        if slot is None:
            slot = evict or self._free(weights)
            slot.fill(weights)
            self.changes += 1
            if self._prepare:
                self._prepare(slot)
        slot.used = time.monotonic()
        return slot

    def _free(self, weights: Weights) -> Slot:
        if not self.has_room(weights.shape):
            slots = self.of_shape(weights.shape)
            # one with the same checkpoint in it takes other networks for less
            return next((slot for slot in slots if slot.holds_base(weights.id)), slots[0])
        made = Slot(weights.shape, self._device, self._dtype, channels_last=self._channels_last)
        self.slots.append(made)
        return self.slots[-1]
