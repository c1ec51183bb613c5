"""The attention block: self-attention over the latent's pixels, cross-attention to the prompt, a gated
feed-forward layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from workers.engine import attention

KeyValue = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a batch's prompts for one layer: [N, heads, tokens, width] each."""

_CACHE_BYTES = 1 << 20
"""What a slice of the batch may fill with the feed-forward's inner layer: it should stay in a core's
cache.
"""


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, L, C] -> [N, heads, L, C / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    attended = attention.attend(_heads(query, heads), key, value)
    return attended.transpose(1, 2).flatten(2)


class TransformerLayer(torch.nn.Module):
    """One layer of the block: pixels attend to each other, then to the prompt, then pass the gated layer."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.attn1, self.attn2, self.ff = layer.attn1, layer.attn2, layer.ff
        self.heads = int(layer.attn1.heads)

    def key_value(self, context: torch.Tensor) -> KeyValue:
        """The keys and values [N, tokens, C] of prompts [N, tokens, width], not yet cut into heads."""
        return self.attn2.to_k(context), self.attn2.to_v(context)

    def forward(self, x: torch.Tensor, prompts: KeyValue) -> torch.Tensor:
        """[N, pixels, C] -> the same shape; changes `x` in place."""
        own = self.norm1(x)
        key, value = _heads(self.attn1.to_k(own), self.heads), _heads(self.attn1.to_v(own), self.heads)
        x += self.attn1.to_out[0](_attend(self.attn1.to_q(own), key, value, self.heads))
        x += self.attn2.to_out[0](_attend(self.attn2.to_q(self.norm2(x)), *prompts, self.heads))
        inner, gate = self.ff.net[0].proj(self.norm3(x)).chunk(2, dim=-1)
        x += self.ff.net[2](inner * F.gelu(gate))
        return x


class Transformer(torch.nn.Module):
    """The library's Transformer2DModel for pictures: the batch goes through in slices that fit a core's
    cache.
    """

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = block.norm, block.proj_in, block.proj_out
        self.transformer_blocks = torch.nn.ModuleList(
            TransformerLayer(layer) for layer in block.transformer_blocks
        )
        self.linear = isinstance(block.proj_in, torch.nn.Linear)

    def forward(self, hidden_states: torch.Tensor, prompts: Iterator[KeyValue]) -> torch.Tensor:
        """[N, C, h, w] -> the same shape. `prompts` gives the keys and values of each layer in turn."""
        rows, channels, height, width = hidden_states.shape
        pixels = self._enter(hidden_states)
        step = (
            max(1, _CACHE_BYTES // (height * width * channels * 8 * 4))
            if hidden_states.device.type == "cpu"
            else rows
        )
        for layer in self.transformer_blocks:
            key, value = next(prompts)
            for start in range(0, rows, step):
                part = slice(start, start + step)
                layer(pixels[part], (key[part], value[part]))
        out = self._leave(pixels, height, width)
        out += hidden_states
        return out

    def _enter(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] -> [N, h * w, C] through the norm and the first projection."""
        normed = self.norm(hidden_states)
        if self.linear:
            out: torch.Tensor = self.proj_in(normed.permute(0, 2, 3, 1).flatten(1, 2))
            return out
        projected: torch.Tensor = self.proj_in(normed)
        return projected.permute(0, 2, 3, 1).flatten(1, 2).contiguous()

    def _leave(self, pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """[N, h * w, C] -> [N, C, h, w] through the last projection."""
        if self.linear:
            out: torch.Tensor = self.proj_out(pixels).unflatten(1, (height, width)).permute(0, 3, 1, 2)
            return out
        projected: torch.Tensor = self.proj_out(pixels.unflatten(1, (height, width)).permute(0, 3, 1, 2))
        return projected
