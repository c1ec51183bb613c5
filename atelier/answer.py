"""The `info` object of the peer's answer, with what Atelier has to say under `atelier`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from atelier.infotext import BASELINE
from atelier.resolve import Resolution


def info(
    resolution: Resolution, infotexts: Sequence[str], *, started: float | None = None, grids: int = 0
) -> dict[str, Any]:
    """The peer's `info` keys in its order for all pictures of a job; `infotexts[i]` belongs to image i of the
    answer, of which the first `grids` are grids. `started`: unix seconds.
    """
    first, request, laid = resolution.parts[0], resolution.payload, resolution.arrangement
    made = [(part, i) for part in resolution.parts for i in range(part.batch_size)]
    # The peer's lists of an X/Y/Z plot name the first picture of each grid once more, in front.
    listed = [made[index] for index in laid.repeated] + made
    seeds = [part.seeds[i] for part, i in listed]
    subseeds = [part.subseeds[i] for part, i in listed]
    vae = first.vae
    return {
        "prompt": first.prompt,
        "all_prompts": [part.prompt for part, _ in listed],
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": [part.negative_prompt for part, _ in made][: laid.negatives],
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": request.subseed_strength or 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": first.sampler,
        "cfg_scale": first.cfg_scale,
        "steps": first.steps,
        "batch_size": first.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.checkpoint.name,
        "sd_model_hash": first.checkpoint.short_hash,
        "sd_vae_name": vae.filename if vae else None,
        "sd_vae_hash": vae.short_hash if vae else None,
        "seed_resize_from_w": request.seed_resize_from_w,
        "seed_resize_from_h": request.seed_resize_from_h,
        "denoising_strength": request.denoising_strength,
        "extra_generation_params": first.extra_params,
        "index_of_first_image": int(grids > 0),
        "infotexts": list(infotexts),
        "styles": list(request.styles or []),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(started)),
        "clip_skip": first.settings.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": BASELINE,
        "atelier": notices(resolution),
    }


def notices(resolution: Resolution) -> dict[str, Any]:
    """{"warnings": [...], "ignored": [{"field", "reason"}]} of a resolved request."""
    ignored = [{"field": each.field, "reason": each.reason} for each in resolution.ignored]
    return {"warnings": list(resolution.warnings), "ignored": ignored}
