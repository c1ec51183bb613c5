"""What the UNet and its ControlNets have in common: the way down to the middle, and what comes in ready made.

What the layers make of the timestep and of the prompt does not depend on the latent. It comes in ready made,
as one line of numbers each, so that it is computed once and not at every step (`conditions` remembers it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

import torch
import torch.nn.functional as F

from workers.engine.blocks.resnet import Resnet
from workers.engine.blocks.transformer import KeyValue, Transformer, TransformerLayer


class Network(torch.nn.Module):
    """A network whose blocks are ours, with the library's names and weights.

    `layers` are its transformers' layers and `resnets` its residual blocks, both in the order in which a
    forward meets them.
    """

    def _meet(self, library: torch.nn.Module, children: Iterable[str]) -> None:
        """Take the library's modules of these names over."""
        for name in children:
            setattr(self, name, getattr(library, name, None))
        self.resnets: list[Resnet] = []
        self.layers: list[TransformerLayer] = []
        for block in (*self.down_blocks, self.mid_block, *(getattr(self, "up_blocks", None) or ())):
            self.resnets += list(block.resnets)
            for attention in attentions(block):
                self.layers += list(attention.transformer_blocks)

    def times(
        self, timesteps: torch.Tensor, added: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """[N, T]: what each residual block adds for timesteps [N], one block after the other. `added`: what
        an SDXL network is told besides, (pooled text [N, P], numbers [N, n]).
        """
        like = self.conv_in.weight
        embedded = self.time_embedding(self.time_proj(timesteps).to(like.dtype))
        if added is not None:
            pooled, numbers = added
            placed = self.add_time_proj(numbers.flatten()).unflatten(0, (len(numbers), -1)).flatten(1)
            embedded = embedded + self.add_embedding(torch.cat([pooled.to(like), placed.to(like)], dim=-1))
        active = F.silu(embedded)
        return torch.cat([block.time_emb_proj(active) for block in self.resnets], dim=1)

    def keys(self, contexts: torch.Tensor) -> torch.Tensor:
        """[N, K]: the keys and values of prompts [N, tokens, width], one layer after the other."""
        pairs = [layer.key_value(contexts) for layer in self.layers]
        return torch.cat([each.flatten(1) for pair in pairs for each in pair], dim=1)

    def _down(
        self, hidden: torch.Tensor, shifts: Iterator[torch.Tensor], prompts: Iterator[KeyValue]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the levels and the middle make of the first convolution's output, and what each block hands
        over to the way up.
        """
        skips = [hidden]
        for block in self.down_blocks:
            for resnet, attention in zip_longest(block.resnets, attentions(block)):
                hidden = through(resnet, attention, hidden, shifts, prompts)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
                skips.append(hidden)
        for resnet, attention in zip_longest(self.mid_block.resnets, [None, *attentions(self.mid_block)]):
            # in the middle an attention stands before its residual block
            if attention is not None:
                hidden = attention(hidden, prompts)
            hidden = resnet(hidden, next(shifts))
        return hidden, skips

    def _shifts(self, times: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of each residual block its own [N, C]."""
        return iter(times.split([block.time_emb_proj.out_features for block in self.resnets], dim=1))

    def _prompts(self, keys: torch.Tensor) -> Iterator[KeyValue]:
        """Of each layer its own keys and values."""
        widths = [layer.attn2.to_k.out_features for layer in self.layers]
        tokens = keys.shape[1] // (2 * sum(widths)) if widths else 0
        start = 0
        for layer, width in zip(self.layers, widths, strict=True):
            size = tokens * width
            pair = [
                keys[:, place : place + size].view(len(keys), tokens, layer.heads, -1).transpose(1, 2)
                for place in (start, start + size)
            ]
            start += 2 * size
            yield pair[0], pair[1]


def attentions(block: torch.nn.Module) -> Sequence[Transformer]:
    """The attention blocks of a level; some levels have none."""
    found: Sequence[Transformer] = getattr(block, "attentions", None) or ()
    return found


def through(
    resnet: Resnet,
    attention: Transformer | None,
    hidden: torch.Tensor,
    shifts: Iterator[torch.Tensor],
    prompts: Iterator[KeyValue],
) -> torch.Tensor:
    hidden = resnet(hidden, next(shifts))
    return hidden if attention is None else attention(hidden, prompts)
