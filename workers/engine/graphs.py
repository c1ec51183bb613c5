"""Recorded forwards: the UNet's work for the hottest batches, replayed with one launch instead of thousands.

On a GPU a small batch waits for its launches, not for its arithmetic (engines of this kind reach a tenth of
the peak). A recording (a CUDA graph) takes its inputs from fixed buffers and its weights from fixed
addresses: as a slot's weights are replaced in place, recordings outlive changes of checkpoint and networks.
What is not recorded yet is served as ever meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from workers.engine import attention
from workers.engine.slots import Slot

log = logging.getLogger(__name__)

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""What a UNet's forward takes: latents [N, C, h, w], times [N, T], keys [N, K]."""
Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

SIZES = (1, 2, 4, 8, 16)
"""Rows of a recording."""
_MOST_PADDING = 1 / 3
"""Of a batch: more rows that nobody asked for would cost what the launches save."""
_USES_WHEN_IDLE, _USES_WHEN_BUSY = 10, 40
"""After how many forwards a batch's kind is recorded: half a picture, and when rows wait two pictures."""
_PAUSE = 20.0
"""While rows wait, recording may take a twentieth of the time."""
_HALVED_AFTER = 1000
"""Forwards after which all counts are halved, so that what was hot yesterday gives way."""
_TOLERANCE = 0.02
"""Of the largest number: how far a recording's first answer may be from the network's own, in any format."""


@dataclass(frozen=True, eq=False)
class Captured:
    """A recording: `replay` computes `output` anew from the buffers it was recorded with. `work`: bytes the
    forward needs on the way, which all recordings share.
    """

    output: torch.Tensor
    replay: Callable[[], None]
    work: int


class Backend(Protocol):
    """What records on one kind of device."""

    def capture(self, forward: Forward, inputs: Inputs) -> Captured:
        """Record forward(*inputs). Raises whatever the device raises."""
        ...

    def settle(self) -> None:
        """Wait until no recording is being replayed, before some are dropped."""
        ...

    def renew(self) -> None:
        """Give the shared memory back; no recording is left."""
        ...


class Key(NamedTuple):
    """What a recording was made for; anything else is another or none."""

    slot: Slot
    rows: int
    latent: tuple[int, ...]
    times: int
    keys: int
    dtype: torch.dtype
    joined: bool
    attention: attention.Choice

    def __str__(self) -> str:
        return f"{self.rows} x {'x'.join(map(str, self.latent))} ({str(self.dtype).removeprefix('torch.')})"


@dataclass(eq=False)
class _Kept:
    """A recording with its buffers. `proved`: its first answer was the network's own."""

    inputs: Inputs
    captured: Captured
    proved: bool = False

    @property
    def own(self) -> int:
        """Bytes that are this recording's alone."""
        return sum(each.nbytes for each in (*self.inputs, self.captured.output))


class _Size(NamedTuple):
    work: int
    own: int


class _Seen(NamedTuple):
    """Where a slot's weights lay when they were last looked at."""

    module: torch.nn.Module
    filled: float
    addresses: tuple[int, ...]


def padded(rows: int) -> int | None:
    """The rows of the recording that serves `rows`; None where the padding would cost more than it saves."""
    size = next((size for size in SIZES if size >= rows), None)
    return None if size is None or (size - rows) / size > _MOST_PADDING else size


class GraphRunner:
    """Runs UNets, and records the `most` hottest kinds of batches within `most_bytes`. For the executor's
    thread alone. `clock` gives seconds.
    """

    def __init__(
        self, backend: Backend, *, most: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backend, self._most, self._most_bytes, self._clock = backend, most, most_bytes, clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._uses: dict[Key, int] = {}
        self._sizes: dict[Key, _Size] = {}
        self._barred: set[Key] = set()
        self._seen: dict[Slot, _Seen] = {}
        self._work = 0
        self._counted = 0
        self._not_before = 0.0
        self.replays = 0

    @property
    def size(self) -> int:
        """Bytes that the recordings hold: their buffers, and the memory they share."""
        return self._work + sum(kept.own for kept in self._kept.values())

    @property
    def keys(self) -> list[Key]:
        """What is recorded, the one unused for longest first."""
        return list(self._kept)

    def run(self, slot: Slot, inputs: Inputs) -> torch.Tensor:
        """The prediction of the slot's UNet for `inputs`, in memory of its own. To be called within the scope
        of the chosen attention.
        """
        rows = padded(len(inputs[0]))
        if rows is None or slot.hooked:  # a hypernetwork's hooks are Python, which no recording repeats
            return slot.unet(*inputs)
        self._look_at(slot)
        key = _key(slot, rows, inputs)
        self._count(key)
        kept = self._kept.get(key)
        if kept is None:
            return slot.unet(*inputs)
        self._kept.move_to_end(key)
        return self._replayed(key, kept, inputs)

    def _replayed(self, key: Key, kept: _Kept, inputs: Inputs) -> torch.Tensor:
        try:
            outputs = _replay(kept, inputs)
        except Exception as error:  # noqa: BLE001  # whatever the device says, the rows can still be served
            self._bar(key, str(error))
            return key.slot.unet(*inputs)
        self.replays += 1
        if kept.proved:
            return outputs
        own = key.slot.unet(*inputs)
        difference, scale = (outputs.float() - own.float()).abs().max(), own.float().abs().max()
        if bool(torch.isfinite(scale)):
            kept.proved = bool(difference <= _TOLERANCE * scale)
            if not kept.proved:
                self._bar(key, "its first answer was not the network's own")
        return own

    def _look_at(self, slot: Slot) -> None:
        """Drop the slot's recordings where its weights have moved. Looked at after each filling."""
        seen, module = self._seen.get(slot), slot.unet
        if seen is not None and seen.module is module and seen.filled == slot.filled:
            return
        addresses = tuple(each.data_ptr() for each in (*module.parameters(), *module.buffers()))
        if seen is not None and seen.addresses != addresses:
            self._drop([key for key in self._kept if key.slot is slot])
        self._seen[slot] = _Seen(module, slot.filled, addresses)

    def _count(self, key: Key) -> None:
        self._uses[key] = self._uses.get(key, 0) + 1
        self._counted += 1
        if self._counted % _HALVED_AFTER == 0:
            self._uses = {key: uses // 2 for key, uses in self._uses.items() if uses > 1 or key in self._kept}

    def improve(self, busy: Callable[[], bool]) -> None:
        """Record what has become hot. While `busy` says that rows wait at most one kind, and seldom."""
        while (found := self._next(busy())) is not None:
            key, victims = found
            begun = self._clock()
            self._drop(victims)
            self._capture(key)
            ended = self._clock()
            self._not_before = ended + _PAUSE * (ended - begun)
            if busy():
                return

    def _next(self, busy: bool) -> tuple[Key, list[Key]] | None:
        """What to record now, and what has to go for it."""
        if busy and self._clock() < self._not_before:
            return None
        enough = _USES_WHEN_BUSY if busy else _USES_WHEN_IDLE
        hot = [key for key, uses in self._uses.items() if uses >= enough and key not in self._kept]
        for key in sorted(hot, key=lambda key: -self._uses[key]):
            if key in self._barred or key.slot.hooked or key.attention != attention.chosen():
                continue
            victims = self._victims(key)
            if victims is not None:
                return key, victims
        return None

    def _victims(self, key: Key) -> list[Key] | None:
        """The less used recordings that have to go for `key`, those unused for longest first; None where they
        are not enough.
        """
        left, victims = dict(self._kept), []
        weaker = iter([each for each in self._kept if self._uses.get(each, 0) < self._uses[key]])
        size = self._sizes.get(key, _Size(0, 0))
        while len(left) >= self._most or self._with(left, size) > self._most_bytes:
            victim = next(weaker, None)
            if victim is None:
                return None
            victims.append(victim)
            del left[victim]
        return victims

    def _with(self, left: dict[Key, _Kept], size: _Size) -> int:
        """Bytes held by the recordings in `left` and one more. The shared memory shrinks with the last one
        only.
        """
        own = sum(kept.own for kept in left.values())
        return max(self._work if left else 0, size.work) + own + size.own

    def _capture(self, key: Key) -> None:
        key.slot.join_edges(key.joined)
        try:
            inputs = _buffers(key)
            with key.attention.scope():
                captured = self._backend.capture(key.slot.unet, inputs)
        except Exception as error:  # noqa: BLE001  # whatever the device says, the rows can still be served
            self._bar(key, str(error))
            return
        kept = _Kept(inputs, captured)
        self._sizes[key] = _Size(captured.work, kept.own)
        self._kept[key] = kept
        self._work = max(self._work, captured.work)
        if captured.work + kept.own > self._most_bytes:
            self._bar(key, f"it needs {(captured.work + kept.own) >> 20} MiB")
        if self.size > self._most_bytes:
            # its size is known by now: what fits together is recorded again, the most used first
            self._drop(list(self._kept))

    def _bar(self, key: Key, reason: str) -> None:
        self._barred.add(key)
        self._drop([key] if key in self._kept else [])
        log.warning("forwards of %s are not recorded as a CUDA graph and run as before: %s", key, reason)

    def _drop(self, keys: list[Key]) -> None:
        if keys:
            self._backend.settle()
        for key in keys:
            del self._kept[key]
        if not self._kept and self._work:
            self._work = 0
            self._backend.renew()


def _key(slot: Slot, rows: int, inputs: Inputs) -> Key:
    latents, times, keys = inputs
    latent = tuple(latents.shape[1:])
    return Key(
        slot,
        rows,
        latent,
        times.shape[1],
        keys.shape[1],
        latents.dtype,
        slot.joined,
        attention.chosen(),
    )


def _buffers(key: Key) -> Inputs:
    """Inputs of the key's shapes, all zeros."""
    device = key.slot.unet.conv_in.weight.device
    latents = torch.zeros((key.rows, *key.latent), dtype=key.dtype, device=device)
    times, keys = (
        torch.zeros((key.rows, width), dtype=key.dtype, device=device) for width in (key.times, key.keys)
    )
    return latents.contiguous(memory_format=torch.channels_last), times, keys


def _replay(kept: _Kept, inputs: Inputs) -> torch.Tensor:
    """The recording's answer to `inputs`, whose last row stands in the rows that are missing."""
    rows = len(inputs[0])
    for buffer, given in zip(kept.inputs, inputs, strict=True):
        for part in _parts(buffer, given, rows):
            part[0].copy_(part[1], non_blocking=True)
    kept.captured.replay()
    # a copy, as the next recording may work where this one's answer lies
    return kept.captured.output[:rows].clone()


def _parts(
    buffer: torch.Tensor, given: torch.Tensor, rows: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield buffer[:rows], given
    if rows < len(buffer):
        yield buffer[rows:], given[-1:]
