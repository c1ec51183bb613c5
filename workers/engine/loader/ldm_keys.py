"""Names of tensors: the LDM layout of published checkpoints -> the networks' own (diffusers,
transformers).
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.engine.loader.architecture import UNetShape, VaeShape

Attention = Sequence[bool]
"""Whether each level attends, the outermost first."""

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def _resnet(ldm: str, own: str) -> dict[str, str]:
    return {f"{ldm}.{theirs}": f"{own}.{ours}" for theirs, ours in _RESNET.items()}


def unet_modules(shape: UNetShape) -> dict[str, str]:
    """LDM module prefix -> diffusers module prefix of every part of the UNet (attention blocks are named
    alike inside).
    """
    return unet_names(shape.attention, shape.blocks)


def unet_names(attention: Attention, blocks: int) -> dict[str, str]:
    """The same for a UNet whose levels attend or not as `attention` says, with `blocks` blocks a level on its
    way down.
    """
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "middle_block.1": "mid_block.attentions.0",
    }
    names |= _resnet("middle_block.0", "mid_block.resnets.0") | _resnet(
        "middle_block.2", "mid_block.resnets.1"
    )
    return names | _down(attention, blocks) | _up(attention, blocks)


def control_names(attention: Attention, blocks: int) -> dict[str, str]:
    """The same for a ControlNet of such a UNet."""
    names = {ldm: own for ldm, own in unet_names(attention, blocks).items() if not ldm.startswith("out")}
    names |= {
        f"input_hint_block.{2 * number}": f"controlnet_cond_embedding.{own}"
        for number, own in enumerate(["conv_in", *(f"blocks.{each}" for each in range(6)), "conv_out"])
    }
    outputs = (blocks + 1) * len(attention)
    names |= {f"zero_convs.{number}.0": f"controlnet_down_blocks.{number}" for number in range(outputs)}
    return names | {"middle_block_out.0": "controlnet_mid_block"}


def _down(attention: Attention, blocks: int) -> dict[str, str]:
    names: dict[str, str] = {}
    per_level = blocks + 1
    for level in range(len(attention)):
        for block in range(blocks):
            ldm = f"input_blocks.{1 + per_level * level + block}"
            names |= _resnet(f"{ldm}.0", f"down_blocks.{level}.resnets.{block}")
            if attention[level]:
                names[f"{ldm}.1"] = f"down_blocks.{level}.attentions.{block}"
        names[f"input_blocks.{per_level * (level + 1)}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    return names


def _up(attention: Attention, blocks: int) -> dict[str, str]:
    names: dict[str, str] = {}
    per_level = blocks + 1
    for level, attends in enumerate(reversed(attention)):
        for block in range(per_level):
            ldm = f"output_blocks.{per_level * level + block}"
            names |= _resnet(f"{ldm}.0", f"up_blocks.{level}.resnets.{block}")
            if attends:
                names[f"{ldm}.1"] = f"up_blocks.{level}.attentions.{block}"
        last = f"output_blocks.{per_level * level + blocks}"
        names[f"{last}.{2 if attends else 1}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return names


def vae_modules(shape: VaeShape) -> dict[str, str]:
    """LDM module prefix -> diffusers module prefix of every part of the autoencoder."""
    return vae_names(len(shape.widths), shape.blocks)


def vae_names(levels: int, blocks: int) -> dict[str, str]:
    """The same for an autoencoder of so many levels, with `blocks` blocks a level on its way in."""
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    top = levels - 1
    for side in ("encoder", "decoder"):
        names |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        names[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        names |= {
            f"{side}.mid.attn_1.{theirs}": f"{side}.mid_block.attentions.0.{ours}"
            for theirs, ours in _VAE_ATTENTION.items()
        }
        for number in (1, 2):
            names |= _vae_resnet(f"{side}.mid.block_{number}", f"{side}.mid_block.resnets.{number - 1}")
    for level in range(top + 1):
        for block in range(blocks):
            names |= _vae_resnet(
                f"encoder.down.{level}.block.{block}", f"encoder.down_blocks.{level}.resnets.{block}"
            )
        for block in range(blocks + 1):
            names |= _vae_resnet(
                f"decoder.up.{level}.block.{block}", f"decoder.up_blocks.{top - level}.resnets.{block}"
            )
        names[f"encoder.down.{level}.downsample.conv"] = f"encoder.down_blocks.{level}.downsamplers.0.conv"
        names[f"decoder.up.{level}.upsample.conv"] = f"decoder.up_blocks.{top - level}.upsamplers.0.conv"
    return names


def _vae_resnet(ldm: str, own: str) -> dict[str, str]:
    alike = {f"{ldm}.{part}": f"{own}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
    return alike | {f"{ldm}.nin_shortcut": f"{own}.conv_shortcut"}


def inverted(modules: dict[str, str]) -> dict[str, str]:
    """The same map the other way: our module prefix -> LDM's."""
    return {own: ldm for ldm, own in modules.items()}


def rename(key: str, modules: dict[str, str]) -> str | None:
    """The own name of the tensor that LDM calls `key`, None where no module of the network has it (with an
    inverted map the other way round).

    The longest known prefix decides, and what follows it (weight, bias, an attention block's inside) stays.
    """
    head = key
    while head:
        if head in modules:
            return modules[head] + key[len(head) :]
        head = head.rpartition(".")[0]
    return None
