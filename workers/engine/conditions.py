"""What a UNet's layers make of timesteps and prompts: computed once for the weights in a slot, and
remembered.

Neither depends on the latent, so that every step of every picture with the same prompt or the same schedule
uses the same numbers (exact: nothing is approximated).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch

from workers.engine.blocks import ControlNet, Network
from workers.engine.rows import Hint, Row

MOST_BYTES = 512 * 2**20
"""Of what is remembered for one slot: over a hundred prompts for SD 1.5, about twenty for SDXL, in half
precision.
"""
_SHARES = (0.55, 0.2, 0.15, 0.1)
"""Of the bytes: for prompts, for the last batches of prompts as they were put together, for timesteps, for
ControlNets' pictures.
"""


class _Kept(NamedTuple):
    line: torch.Tensor
    holds: object
    """What the key names by identity lives as long as the entry, so that no other object takes its place."""


class Lines:
    """Tensors by key, the least recently used forgotten first, at most `most_bytes` of them (but one)."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self.size = most_bytes, 0
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The tensor of that key, which becomes the most recently used."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found.line

    def put(self, key: Hashable, line: torch.Tensor, holds: object = None) -> None:
        """Remember a tensor under a key that has none yet."""
        self._kept[key] = _Kept(line, holds)
        self.size += line.nbytes
        while self.size > self._most and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self.size -= gone.line.nbytes


class Conditions:
    """The lines of one slot's rows. They hold for one filling of the slot: another one empties them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._filling: Hashable = None
        self._empty()

    def _empty(self) -> None:
        self._prompts, self._batches, self._times, self._hints = (
            Lines(int(self._most * share)) for share in _SHARES
        )

    def of_filling(self, filling: Hashable) -> Conditions:
        """These conditions, emptied where they were made with other weights. `filling` names the weights and
        when they came into the slot.
        """
        if filling != self._filling:
            self._empty()
            self._filling = filling
        return self

    @property
    def size(self) -> int:
        """Bytes remembered."""
        return sum(each.size for each in (self._prompts, self._batches, self._times, self._hints))

    def keys(self, unet: Network, rows: Sequence[Row]) -> torch.Tensor:
        """[N, K] for `unet`: the keys and values of the rows' prompts."""
        contexts = tuple(row.context for row in rows)
        known = self._batches.get(contexts)
        if known is None:
            lines = [self._of_prompt(unet, row) for row in rows]
            known = lines[0][None] if len(lines) == 1 else torch.stack(lines)
            self._batches.put(contexts, known)
        return known

    def _of_prompt(self, unet: Network, row: Row) -> torch.Tensor:
        line = self._prompts.get(row.context)
        if line is None:
            line = unet.keys(row.context.tensor[None].to(unet.conv_in.weight))[0]
            self._prompts.put(row.context, line)
        return line

    def hint(self, network: ControlNet, hint: Hint) -> torch.Tensor:
        """[C, h, w] for a ControlNet: what its picture adds to the first convolution's output."""
        line = self._hints.get(hint)
        if line is None:
            like = network.conv_in.weight
            shown = hint.picture[None].to(like).contiguous(memory_format=torch.channels_last)
            line = network.hint(shown)[0]
            self._hints.put(hint, line)
        return line

    def times(self, unet: Network, rows: Sequence[Row]) -> torch.Tensor:
        """[N, T] for `unet`: what its residual blocks add for the rows' timesteps, and for what the rows are
        told besides.
        """
        lines = [self._of_time(unet, row) for row in rows]
        return lines[0][None] if len(lines) == 1 else torch.stack(lines)

    def _of_time(self, unet: Network, row: Row) -> torch.Tensor:
        added, weight = row.added, unet.conv_in.weight
        key = (row.timestep, None if added is None else (id(added.pooled), added.numbers))
        line = self._times.get(key)
        if line is None:
            told = None
            if added is not None:
                told = (added.pooled[None].to(weight), _numbers(added.numbers, weight.device)[None])
            line = unet.times(_numbers((row.timestep,), weight.device), told)[0]
            self._times.put(key, line, added)
        return line


def _numbers(numbers: Sequence[float], device: torch.device) -> torch.Tensor:
    """[n], float32. Each goes to the device with the command that writes it: a copy from the host's ordinary
    memory would make the host wait.
    """
    return torch.cat([torch.full((1,), number, dtype=torch.float32, device=device) for number in numbers])
