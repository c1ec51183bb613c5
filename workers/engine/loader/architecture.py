"""What networks a single-file checkpoint of the LDM layout holds: their widths, read off the tensors'
shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from atelier.contract.errors import ModelUnusable

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape, as in the file's header, without the network's prefix."""

UNET_HEADS = 8
"""Of every level in models of Stable Diffusion 1.x."""
HEAD_WIDTH = 64
"""Channels of a head: in the UNets of later models, and in all published text encoders."""
CLIP_HEADS_OF_SMALL = 4
MOST_LAYERS = 100
"""Of one kind in one network; the largest published encoder has 32."""
TIME_WIDTH = 256
"""Of the embedding of each number an SDXL network is told besides its prompt."""


@dataclass(frozen=True)
class UNetShape:
    """A UNet of the Stable Diffusion family. `depths[i]` is the number of transformer layers in each
    attention block of level i (0: the level does not attend), `middle` that of the middle's; `heads[i]` the
    number of heads. `added`: width of what is told besides the prompt (pooled text and sizes), 0 for nothing.
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int
    blocks: int
    context: int
    heads: tuple[int, ...]
    linear_projection: bool
    added: int = 0

    @property
    def attention(self) -> tuple[bool, ...]:
        """Whether each level attends."""
        return tuple(depth > 0 for depth in self.depths)


@dataclass(frozen=True)
class ControlShape:
    """A ControlNet: the UNet whose way down it copies (of which the way up and out do not count), and the
    widths of the layers that read its picture (the first and every second one after it).
    """

    unet: UNetShape
    hint: tuple[int, ...]

    def fits(self, unet: UNetShape) -> bool:
        """Whether what it gives can be added to that UNet."""
        own = self.unet
        return (own.widths, own.depths, own.middle, own.blocks, own.context, own.added) == (
            unet.widths,
            unet.depths,
            unet.middle,
            unet.blocks,
            unet.context,
            unet.added,
        )


@dataclass(frozen=True)
class VaeShape:
    """An autoencoder of the KL family: `widths` of its levels from the picture's side inwards."""

    widths: tuple[int, ...]
    blocks: int
    latent_channels: int
    channels: int


@dataclass(frozen=True)
class TextShape:
    """A CLIP text encoder. `activation`: OpenAI's encoders have "quick_gelu", OpenCLIP's "gelu".
    `projection`: width of the pooled text, 0 where the encoder gives none.
    """

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    activation: str = "quick_gelu"
    projection: int = 0


def _shape(shapes: Shapes, key: str, file: str) -> tuple[int, ...]:
    try:
        return shapes[key]
    except KeyError:
        raise ModelUnusable(
            f"{file} lacks the tensor {key!r}: it is no Stable Diffusion checkpoint of the LDM layout."
        ) from None


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers from 0 on `pattern`'s group matches without a gap, at most MOST_LAYERS: what follows a
    gap, however far, belongs to no network and is found to be too many.
    """
    found = {match[1] for match in (re.match(pattern, key) for key in shapes) if match}
    return next(
        number for number in range(MOST_LAYERS + 1) if str(number) not in found or number == MOST_LAYERS
    )


def _levels(shapes: Shapes) -> list[list[int]]:
    """Numbers of the UNet's input blocks that hold a resnet, grouped by level: a level ends with a
    downsampling block.
    """
    levels: list[list[int]] = [[]]
    for number in range(1, _count(shapes, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{number}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(number)
    return levels


def _depth(shapes: Shapes, block: str) -> int:
    """Transformer layers of an attention block, 0 where there is none."""
    return _count(shapes, rf"{re.escape(block)}\.transformer_blocks\.(\d+)\.")


def infer_unet(
    shapes: Shapes, file: str, *, heads: int | None = None, head_width: int | None = None
) -> UNetShape:
    """The UNet whose tensors (below `model.diffusion_model.`) have these shapes. `file` names it in
    errors.

    The heads leave no trace in the tensors: as many as `heads`, or as wide as `head_width`, where the
    configuration says so; else 64 channels each where attention begins with a linear layer, 8 where with a
    convolution.
    """
    first = _shape(shapes, "input_blocks.0.0.weight", file)
    levels = _levels(shapes)
    topology = [[_depth(shapes, f"input_blocks.{number}.1") for number in level] for level in levels]
    depths = tuple(found[0] for found in topology if found)
    middle = _depth(shapes, "middle_block.1")
    regular = len({len(found) for found in topology}) == 1 and all(len(set(found)) == 1 for found in topology)
    if not regular or not middle or not any(depths) or (depths[-1] and depths[-1] != middle):
        raise ModelUnusable(
            f"{file} has a UNet of an unknown topology (transformer layers per block: {topology}, "
            f"{middle} in the middle). Checkpoints of the families SD1, SD2 and SDXL can be used."
        )
    widths = tuple(
        _shape(shapes, f"input_blocks.{level[0]}.0.out_layers.3.weight", file)[0] for level in levels
    )
    where = f"input_blocks.{next(level[0] for level, depth in zip(levels, depths, strict=True) if depth)}.1"
    linear = len(_shape(shapes, f"{where}.proj_in.weight", file)) == 2
    if linear and heads is None:
        head_width = head_width or HEAD_WIDTH
    return UNetShape(
        in_channels=first[1],
        out_channels=_shape(shapes, "out.2.weight", file)[0],
        widths=widths,
        depths=depths,
        middle=middle,
        blocks=len(levels[0]),
        context=_shape(shapes, f"{where}.transformer_blocks.0.attn2.to_k.weight", file)[1],
        heads=tuple(max(1, width // head_width) if head_width else heads or UNET_HEADS for width in widths),
        linear_projection=linear,
        added=shapes.get("label_emb.0.0.weight", (0, 0))[1],
    )


def infer_control(shapes: Shapes, file: str) -> ControlShape:
    """The ControlNet whose tensors (in the LDM layout, without a prefix) have these shapes."""
    first = _shape(shapes, "input_blocks.0.0.weight", file)
    # it has no way out of its own: what it says of one is what goes in
    unet = infer_unet({**shapes, "out.2.weight": first[1:2]}, file)
    hint = tuple(_shape(shapes, f"input_hint_block.{place}.weight", file)[0] for place in (0, 4, 8, 12))
    return ControlShape(unet, hint)


def infer_vae(shapes: Shapes, file: str) -> VaeShape:
    """The autoencoder whose tensors (below `first_stage_model.`) have these shapes."""
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    widths = tuple(
        _shape(shapes, f"encoder.down.{level}.block.0.conv1.weight", file)[0] for level in range(levels)
    )
    if not widths:
        raise ModelUnusable(f"{file} holds no autoencoder (no tensor 'encoder.down.0.block.0.conv1.weight').")
    return VaeShape(
        widths=widths,
        blocks=_count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        latent_channels=_shape(shapes, "decoder.conv_in.weight", file)[1],
        channels=_shape(shapes, "decoder.conv_out.weight", file)[0],
    )


def infer_text(
    shapes: Shapes, file: str, *, heads: int | None = None, open_clip: bool = False, pools: bool = False
) -> TextShape:
    """The text encoder whose tensors (under the names of transformers, below `text_model.`) have these
    shapes. `pools`: its pooled text is wanted.

    The number of heads leaves no trace in the tensors: 64 channels a head where that is possible (all
    published encoders), else 4.
    """
    vocabulary, width = _shape(shapes, "embeddings.token_embedding.weight", file)
    regular = width % HEAD_WIDTH == 0 and width >= 8 * HEAD_WIDTH
    return TextShape(
        width=width,
        layers=_count(shapes, r"encoder\.layers\.(\d+)\."),
        heads=heads or (width // HEAD_WIDTH if regular else CLIP_HEADS_OF_SMALL),
        inner=_shape(shapes, "encoder.layers.0.mlp.fc1.weight", file)[0],
        vocabulary=vocabulary,
        positions=_shape(shapes, "embeddings.position_embedding.weight", file)[0],
        activation="gelu" if open_clip else "quick_gelu",
        projection=_shape(shapes, "text_projection.weight", file)[0] if pools else 0,
    )
