"""Plain diffusers on the weights of a checkpoint in memory, eager and compiled. Its prompts come encoded, so
its seconds are those of UNet, scheduler and decoder alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging

from workers.engine.loader import networks
from workers.engine.loader.architecture import UNetShape
from workers.engine.loader.checkpoint import Checkpoint, Weights

TOKENS = 77

Make = Callable[[int, int, int, int], object]
"""(pictures at once, side in pixels, steps, seed) -> the pictures."""


def _module(weights: Weights, device: str, dtype: torch.dtype) -> torch.nn.Module:
    with torch.device("meta"):
        module = networks.library(weights.shape)
    module = torch.nn.Module.to(module, dtype).to_empty(device=device)
    module.load_state_dict(weights.tensors, strict=True)
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def pipeline(checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> Make:
    """What makes pictures with guidance 7 and Euler."""
    diffusers_logging.set_verbosity_error()
    shape = checkpoint.unet.shape
    assert isinstance(shape, UNetShape)
    latest = checkpoint.family == "sdxl"
    kind = StableDiffusionXLPipeline if latest else StableDiffusionPipeline
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    parts = {"tokenizer_2": None, "text_encoder_2": None, "add_watermarker": False} if latest else {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    }  # fmt: skip
    vae, unet = (_module(each, device, dtype) for each in (checkpoint.vae, checkpoint.unet))
    # the engine decodes in half precision as long as its pictures are finite; so does the rival here
    vae.register_to_config(force_upcast=False)
    made = kind(vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler, **parts)
    made.set_progress_bar_config(disable=True)
    generator = torch.Generator(device).manual_seed(2)

    def told(count: int, width: int, *between: int) -> torch.Tensor:
        one = torch.randn(1, *between, width, generator=generator, device=device).to(dtype)
        return one.expand(count, *between, width).contiguous()

    def make(count: int, side: int, steps: int, seed: int) -> object:
        texts = {name: told(count, shape.context, TOKENS) for name in _names("prompt_embeds")}
        if latest:
            pooled = checkpoint.texts[-1].shape.projection
            texts |= {name: told(count, pooled) for name in _names("pooled_prompt_embeds")}
        noise = torch.Generator(device).manual_seed(seed)
        size = {"height": side, "width": side}
        return made(num_inference_steps=steps, guidance_scale=7.0, generator=noise, **size, **texts).images

    make.pipeline = made  # type: ignore[attr-defined]
    return make


def _names(name: str) -> tuple[str, str]:
    return name, f"negative_{name}"


def compiled(make: Make, mode: str) -> Make:
    """The same with its UNet and its decoder compiled by torch at the first call of each size."""
    made = make.pipeline  # type: ignore[attr-defined]
    made.unet = torch.compile(made.unet, mode=mode, fullgraph=True)
    made.vae.decode = torch.compile(made.vae.decode, mode=mode)
    return make
