"""The demo checkpoint's networks, and its single-file layout as Stable Diffusion 1.5 has it.

The topology is SD1.5's (UNet of 4 levels x 2 blocks, VAE of 4 levels, 12 text layers, the full
CLIP vocabulary); only the widths are small. No level is narrower than 64: under 32 groups a
narrower one would be an instance norm, which erases colour.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from workers.training.demo.wordings import END, LENGTH, START, VOCABULARY

UNET_WIDTHS = (64, 64, 128, 128)
VAE_WIDTHS = (64, 64, 64, 64)
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 96, 12, 4
SCALE = 0.18215
LOGVAR = -30.0

Weights = dict[str, Tensor]

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer.text_model."

METADATA = {
    "format": "pt",
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.implementation": "https://github.com/CompVis/stable-diffusion",
    "modelspec.title": "Atelier demo",
    "modelspec.description": "Coloured shapes on coloured backgrounds, for trying things out.",
    "modelspec.resolution": "128x128",
    "modelspec.prediction_type": "epsilon",
}


def build_unet() -> UNet2DConditionModel:
    """The denoiser, 16x16 latents natively."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=UNET_WIDTHS,
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=32,
    )


def build_vae() -> AutoencoderKL:
    """The autoencoder, 128x128 pictures to 16x16x4 latents."""
    return AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=128,
        scaling_factor=SCALE,
    )


def build_text(vocabulary: int = VOCABULARY) -> CLIPTextModel:
    """The text encoder; training uses a short vocabulary, the exported file the full one."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_HEADS,
            max_position_embeddings=LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=START,
            eos_token_id=END,
            pad_token_id=END,
        )
    )


def noise_schedule() -> DDIMScheduler:
    """SD1.5's betas; only the tables are used."""
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


_UNET_RULES: tuple[tuple[str, str], ...] = (
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
)
_RESNET_NAMES = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}


def _unet_block(key: str) -> str:
    """The LDM place of a down or up block's module."""
    match = re.match(r"(down|up)_blocks\.(\d)\.(\w+?)\.(\d)\.(.*)", key)
    if match is None:
        return key
    way, level, kind, index, rest = match.groups()
    first = 3 * int(level)
    if kind == "downsamplers":
        return f"input_blocks.{first + 3}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + 2}.{1 if level == '0' else 2}.{rest}"
    number = first + int(index) + (1 if way == "down" else 0)
    branch = "input_blocks" if way == "down" else "output_blocks"
    return f"{branch}.{number}.{1 if kind == 'attentions' else 0}.{rest}"


def unet_key(key: str) -> str:
    """The LDM name of a diffusers UNet parameter."""
    for pattern, replacement in _UNET_RULES:
        key = re.sub(pattern, replacement, key)
    resnet = ".resnets." in key or re.match(r"middle_block\.[02]\.", key)
    key = _unet_block(key)
    if resnet:
        for theirs, ldm in _RESNET_NAMES.items():
            key = key.replace(f".{theirs}", f".{ldm}")
    return key


_VAE_RULES: tuple[tuple[str, str], ...] = (
    (r"mid_block\.attentions\.0\.group_norm\.", "mid.attn_1.norm."),
    (r"mid_block\.attentions\.0\.to_(q|k|v)\.", r"mid.attn_1.\1."),
    (r"mid_block\.attentions\.0\.to_out\.0\.", "mid.attn_1.proj_out."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"down_blocks\.(\d)\.resnets\.(\d)\.", r"down.\1.block.\2."),
    (r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"conv_norm_out\.", "norm_out."),
    (r"conv_shortcut\.", "nin_shortcut."),
)


def vae_key(key: str) -> str:
    """The LDM name of a diffusers VAE parameter; LDM counts the decoder's levels backwards."""
    for pattern, replacement in _VAE_RULES:
        key = re.sub(pattern, replacement, key)
    match = re.match(r"decoder\.up_blocks\.(\d)\.(resnets\.(\d)|upsamplers\.0)\.(.*)", key)
    if match is None:
        return key
    level, kind, index, rest = match.groups()
    place = f"block.{index}" if kind.startswith("resnets") else "upsample"
    return f"decoder.up.{3 - int(level)}.{place}.{rest}"


def text_key(key: str) -> str:
    """The LDM name of a transformers CLIP parameter."""
    return _TEXT + key.removeprefix("text_model.")


def to_ldm(unet: Weights, vae: Weights, text: Weights) -> Weights:
    """All weights under their single-file names, fp16; the noise tables stay fp32."""
    weights = {_UNET + unet_key(k): v.half() for k, v in unet.items()}
    for key, value in vae.items():
        name = vae_key(key)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            value = value[:, :, None, None]
        weights[_VAE + name] = value.half()
    for key, value in text.items():
        if not key.endswith("position_ids"):
            weights[text_key(key)] = value.half()
    weights[_TEXT + "embeddings.position_ids"] = torch.arange(LENGTH)[None]
    schedule = noise_schedule()
    weights["betas"] = schedule.betas.float()
    weights["alphas_cumprod"] = schedule.alphas_cumprod.float()
    return {name: value.contiguous() for name, value in weights.items()}


def save_checkpoint(weights: Weights, path: Path, figures: dict[str, str]) -> None:
    """Write the single file so that a reader sees either the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(weights, partial, metadata=METADATA | figures)
    os.replace(partial, path)


def _fill(module: nn.Module, names: dict[str, str], weights: Weights) -> None:
    """Load a module's parameters from their single-file names, in fp32, none missing."""
    state = {}
    for key, value in module.state_dict().items():
        if not key.endswith("position_ids"):
            state[key] = weights[names[key]].float().reshape(value.shape)
    module.load_state_dict(state, strict=False)
    module.eval().requires_grad_(False)


def load_checkpoint(path: Path) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    """The three networks of an exported file, fp32, ready to sample with."""
    weights = load_file(path)
    unet, vae, text = build_unet(), build_vae(), build_text()
    _fill(unet, {k: _UNET + unet_key(k) for k in unet.state_dict()}, weights)
    _fill(vae, {k: _VAE + vae_key(k) for k in vae.state_dict()}, weights)
    _fill(text, {k: text_key(k) for k in text.state_dict()}, weights)
    return unet, vae, text


def metadata(path: Path) -> dict[str, str]:
    """The header's metadata of an exported file."""
    with safe_open(path, "pt") as file:
        return json.loads(json.dumps(file.metadata()))
