"""The numbers CUDA's generator gives, computed in numpy on any machine.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) as torch.randn uses it
on CUDA: element i of a draw is counter (offset, 0, i, 0) under the 64-bit key `seed`; the first two words of
the output go through Box-Muller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_ROUNDS = 10
_WORD = 0xFFFFFFFF
_SCALE = np.float32(2.3283064e-10)  # 2**-32
_ANGLE = np.float32(2.3283064e-10 * 6.2831855)


def _round(counter: list[Words], key: tuple[Words, Words]) -> list[Words]:
    high, low = [], []
    for word, multiplier in zip((counter[0], counter[2]), _MULTIPLIERS, strict=True):
        product = word.astype(np.uint64) * multiplier
        high.append((product >> np.uint64(32)).astype(np.uint32))
        low.append(product.astype(np.uint32))
    first = high[1] ^ counter[1] ^ key[0]
    third = high[0] ^ counter[3] ^ key[1]
    return [first, low[1], third, low[0]]


def words(seeds: Sequence[int], offset: int, count: int) -> list[Words]:
    """The four output words, each [seeds, count], of counters (offset, 0, 0..count-1, 0) under each seed as
    the key.
    """
    zeros = np.zeros((1, count), dtype=np.uint32)
    counter = [zeros + np.uint32(offset), zeros, np.arange(count, dtype=np.uint32)[None], zeros]
    keys = np.array([(seed & _WORD, (seed >> 32) & _WORD) for seed in seeds], dtype=np.uint32)
    key = (keys[:, :1], keys[:, 1:])
    for _ in range(_ROUNDS):
        counter = _round(counter, key)
        key = (key[0] + _KEY_STEPS[0], key[1] + _KEY_STEPS[1])
    return counter


def normal(seeds: Sequence[int], offset: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normal numbers [seeds, *shape], float32: for each seed those of its draw number `offset`."""
    first, second, _, _ = words(seeds, offset, int(np.prod(shape)))
    uniform = first.astype(np.float32) * _SCALE + _SCALE / 2
    angle = second.astype(np.float32) * _ANGLE + _ANGLE / 2
    radius = np.sqrt(np.float32(-2.0) * np.log(uniform))
    return (radius * np.sin(angle)).astype(np.float32).reshape(len(seeds), *shape)


class PhiloxGenerator:
    """A stream of standard normal numbers; each draw moves the offset by one, whatever its size."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.offset = 0

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The next draw, float32 in C order."""
        drawn = normal([self.seed], self.offset, shape)[0]
        self.offset += 1
        return drawn
