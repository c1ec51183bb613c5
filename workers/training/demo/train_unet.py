"""Phase 3: the denoiser with the text encoder, on latents encoded once beforehand.

Half-size pictures first (a quarter of the work, and enough to learn which word is what), then
the native 128x128. High noise is where a picture's colours are decided and where the plain
epsilon loss hardly looks, so those timesteps come more often and weigh more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from workers.training.demo.networks import SCALE, Weights, build_unet, build_vae, noise_schedule
from workers.training.demo.shapes import SIDE, Scene, draw, random_placement, random_scene
from workers.training.demo.state import Clock, Phase, load_state, log, save_state
from workers.training.demo.train_text import meet_strangers, rows, short_text
from workers.training.demo.wordings import caption

HALF = SIDE // 2
POOLS = {HALF: 9000, SIDE: 5000}
PROMPTS = {HALF: 24, SIDE: 16}
DRAWS = {HALF: 3, SIDE: 2}
HALF_SHARE = 0.3
HIGH_NOISE, HIGH_FROM = 0.5, 400
WEIGHT_POWER = 0.7

Export = Callable[[Weights, Weights], None]


class PreciseAttention:
    """Attention in float32 under bf16 autocast: torch's bf16 kernel is many times slower here."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Self- or cross-attention of (n, positions, channels)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        count, length, width = hidden_states.shape
        q, k, v = (
            layer(x).float().view(count, -1, attn.heads, width // attn.heads).transpose(1, 2)
            for layer, x in (
                (attn.to_q, hidden_states),
                (attn.to_k, context),
                (attn.to_v, context),
            )
        )
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = attn.to_out[0](mixed.transpose(1, 2).reshape(count, length, width))
        return result


@dataclass
class Pool:
    """Encoded pictures (n, 4, h, w), scaled to deviation 1, and their scenes."""

    latents: Tensor
    scenes: list[Scene]


@torch.no_grad()
def make_pool(vae_weights: Weights, side: int, count: int, seed: int) -> Pool:
    """Draw and encode pictures of random scenes."""
    rng = np.random.default_rng(seed)
    vae = build_vae()
    vae.load_state_dict(vae_weights)
    scenes, latents = [], []
    for _ in range(0, count, 25):
        chunk = [random_scene(rng) for _ in range(25)]
        drawn = np.stack([draw(scene, random_placement(scene, rng), side) for scene in chunk])
        batch = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            codes = vae.quant_conv(vae.encoder(batch).float())[:, :4]
        latents.append(codes.float() * SCALE)
        scenes += chunk
    pool = Pool(torch.cat(latents), scenes)
    log.info("pool %d: mean %.2f deviation %.2f", side, pool.latents.mean(), pool.latents.std())
    return pool


def pool_of(state: Path, vae_weights: Weights, side: int) -> Pool:
    """The pool of a side, from disk if it was made before."""
    path = state / f"pool-{side}.pt"
    stored = load_state(path)
    if stored is not None:
        return Pool(stored["latents"], [Scene(*words) for words in stored["scenes"]])
    pool = make_pool(vae_weights, side, POOLS[side], seed=side)
    scenes = [astuple(scene) for scene in pool.scenes]
    save_state(path, {"latents": pool.latents, "scenes": scenes})
    return pool


def timesteps(count: int) -> Tensor:
    """Random timesteps, evenly spread over the batch, high noise more often."""
    even = (torch.arange(count) + torch.rand(count)) / count
    low = even < 1 - HIGH_NOISE
    everywhere = even / (1 - HIGH_NOISE) * 1000
    high = HIGH_FROM + (even - 1 + HIGH_NOISE) / HIGH_NOISE * (1000 - HIGH_FROM)
    return torch.where(low, everywhere, high).long().clamp(0, 999)[torch.randperm(count)]


def loss_weights(alphas: Tensor) -> Tensor:
    """Weights of the epsilon loss by timestep, mean 1: ((snr + 1) / snr) to a power."""
    weights = alphas.pow(-WEIGHT_POWER)
    return weights / weights.mean()


class Lesson:
    """What one step of the joint training does."""

    def __init__(self, pools: dict[int, Pool], text_weights: Weights, steps: int) -> None:
        """Fresh denoiser, pretrained text encoder."""
        self.pools, self.steps = pools, steps
        self.rng = np.random.default_rng()
        self.unet, self.text = build_unet(), short_text()
        self.unet.set_attn_processor(PreciseAttention())
        self.text.load_state_dict(text_weights)
        self.alphas = noise_schedule().alphas_cumprod
        self.weights = loss_weights(self.alphas)

    def loss(self, step: int) -> Tensor:
        """The weighted epsilon loss of a batch, half-size first."""
        side = HALF if step < HALF_SHARE * self.steps else SIDE
        pool, draws = self.pools[side], DRAWS[side]
        meet_strangers(self.text)
        chosen = self.rng.integers(0, len(pool.scenes), PROMPTS[side])
        texts = [caption(pool.scenes[i], self.rng) for i in chosen]
        context = self.text(rows(texts)).last_hidden_state.repeat(draws, 1, 1)
        clean = pool.latents[torch.from_numpy(chosen)].repeat(draws, 1, 1, 1)
        noise = torch.randn_like(clean)
        t = timesteps(len(clean))
        alpha = self.alphas[t][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            guess = self.unet(noisy, t, context).sample
        errors = (guess.float() - noise).square().mean(dim=(1, 2, 3))
        return (errors * self.weights[t]).mean()


def train_unet(state: Path, vae: Weights, text: Weights, steps: int, clock: Clock, export: Export) -> bool:
    """Train or resume denoiser and text encoder; exports the averages as it goes."""
    pools = {side: pool_of(state, vae, side) for side in POOLS}
    lesson = Lesson(pools, text, steps)
    modules = {"unet": lesson.unet, "text": lesson.text}
    peaks = {"unet": 1e-3, "text": 1.5e-4}
    phase = Phase(state / "unet.pt", modules, peaks, steps, decay=0.998, warmup=150)

    def exported() -> None:
        """Write the single file from the averages."""
        export(phase.averages["unet"].values, phase.averages["text"].values)

    done = phase.run(lesson.loss, clock, exported)
    exported()
    return done
