"""How each family reads its text encoders: which layer, with or without the last norm, how a chunk is filled
up, and whether the text as a whole is wanted.

Behaviour of the peer (v1.10.1), which in turn is that of the published training code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import torch

from atelier.prompt import tokens

OPEN_CLIP_PADDING = 0


class Skip(Enum):
    """Whether clip skip chooses the layer: never, always, or under the option `sdxl_clip_l_skip`."""

    NEVER = auto()
    ALWAYS = auto()
    IF_ASKED = auto()


@dataclass(frozen=True)
class Reading:
    """How one text encoder is read. `layer` counts hidden states from the last (1); `normed`: it goes through
    the final norm; `padding` follows a chunk's first end mark.
    """

    layer: int
    normed: bool
    skip: Skip = Skip.NEVER
    padding: int = tokens.END
    pools: bool = False

    def chosen(self, clip_skip: int, *, clip_l_skip: bool) -> int:
        """The layer that is read under these options."""
        skips = self.skip is Skip.ALWAYS or (self.skip is Skip.IF_ASKED and clip_l_skip)
        return max(clip_skip, 1) if skips else self.layer


_OPEN_CLIP_POOLING = Reading(2, normed=False, padding=OPEN_CLIP_PADDING, pools=True)

READINGS: dict[str, tuple[Reading, ...]] = {
    "sd1": (Reading(1, normed=True, skip=Skip.ALWAYS),),
    "sd2": (Reading(2, normed=True, padding=OPEN_CLIP_PADDING),),
    "sdxl": (Reading(2, normed=False, skip=Skip.IF_ASKED), _OPEN_CLIP_POOLING),
    "sdxl-refiner": (_OPEN_CLIP_POOLING,),
}
"""By base family, one for each of its text encoders."""

BLANK_NEGATIVE = frozenset({"sdxl", "sdxl-refiner"})
"""Families to which a negative prompt without any words is zeros."""


class Read(NamedTuple):
    """What an encoder gives for chunks: states [chunks, 77, width], and the first chunk as one vector [P]."""

    states: torch.Tensor
    pooled: torch.Tensor | None


def padded(ids: Sequence[int], padding: int) -> list[int]:
    """A chunk's identifiers with `padding` after its first end mark."""
    end = ids.index(tokens.END) + 1
    return [*ids[:end], *[padding] * (len(ids) - end)]


def read(module: torch.nn.Module, ids: torch.Tensor, reading: Reading, layer: int) -> Read:
    """`ids` [chunks, 77] through a text encoder, its hidden state number `layer` from the last.

    The text as a whole is the last layer's state at the first end mark, projected: of the first chunk, as in
    the peer. Where vectors of an embedding stand, `ids` hold 0, so that they are never taken for that mark.
    """
    deep = layer > 1 or not reading.normed
    out = module(input_ids=ids, output_hidden_states=deep)
    states = out.last_hidden_state
    if deep:
        states = out.hidden_states[-min(layer, len(out.hidden_states))]
        states = module.final_layer_norm(states) if reading.normed else states
    if not reading.pools:
        return Read(states, None)
    end = (ids[0] == tokens.END).int().argmax(dim=0, keepdim=True)
    projection = module.get_submodule("text_projection")
    # an index that stays on the device: nobody waits for it
    return Read(states, projection(out.last_hidden_state[0].index_select(0, end)[0]))
