"""The peer's options with their defaults, and which of them a picture of ours depends on."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

ENGINE_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "randn_source": "randn_source",
        "CLIP_stop_at_last_layers": "clip_skip",
        "emphasis": "emphasis",
        "comma_padding_backtrack": "comma_padding_backtrack",
        "eta_ancestral": "eta",
        "eta_ddim": "eta_ddim",
        "eta_noise_seed_delta": "eta_noise_seed_delta",
        "s_churn": "s_churn",
        "s_tmin": "s_tmin",
        "s_tmax": "s_tmax",
        "s_noise": "s_noise",
        "sigma_min": "sigma_min",
        "sigma_max": "sigma_max",
        "rho": "rho",
        "always_discard_next_to_last_sigma": "always_discard_next_to_last_sigma",
        "sgm_noise_multiplier": "sgm_noise_multiplier",
        "beta_dist_alpha": "beta_dist_alpha",
        "beta_dist_beta": "beta_dist_beta",
        "uni_pc_variant": "uni_pc_variant",
        "uni_pc_skip_type": "uni_pc_skip_type",
        "uni_pc_order": "uni_pc_order",
        "uni_pc_lower_order_final": "uni_pc_lower_order_final",
        "s_min_uncond": "s_min_uncond",
        "s_min_uncond_all": "s_min_uncond_all",
        "skip_early_cond": "skip_early_cond",
        "use_old_scheduling": "use_old_scheduling",
        "use_old_emphasis_implementation": "use_old_emphasis_implementation",
        "hires_fix_use_firstpass_conds": "hires_fix_use_firstpass_conds",
        "auto_vae_precision": "auto_vae_precision",
        "auto_vae_precision_bfloat16": "auto_vae_precision_bfloat16",
        "inpainting_mask_weight": "inpainting_mask_weight",
        "pad_cond_uncond": "pad_cond_uncond",
        "pad_cond_uncond_v0": "pad_cond_uncond_v0",
        "use_downcasted_alpha_bar": "use_downcasted_alpha_bar",
        "use_old_karras_scheduler_sigmas": "use_old_karras_scheduler_sigmas",
        "img2img_extra_noise": "extra_noise",
        "sdxl_clip_l_skip": "sdxl_clip_l_skip",
        "sdxl_crop_top": "sdxl_crop_top",
        "sdxl_crop_left": "sdxl_crop_left",
        "sdxl_refiner_low_aesthetic_score": "sdxl_refiner_low_aesthetic_score",
        "sdxl_refiner_high_aesthetic_score": "sdxl_refiner_high_aesthetic_score",
    }
)
"""Option name -> field of EngineSettings."""

NAMING_OPTIONS = frozenset({"sd_model_checkpoint", "sd_vae"})
INFOTEXT_OPTIONS = frozenset(
    {
        "add_model_hash_to_info",
        "add_model_name_to_info",
        "add_vae_hash_to_info",
        "add_vae_name_to_info",
        "add_version_to_infotext",
    }
)
RESOLVED_OPTIONS = frozenset(
    {
        "sd_noise_schedule",
        "sd_vae_overrides_per_model_preferences",
        "hires_fix_refiner_pass",
        "use_old_hires_fix_width_height",
        "refiner_switch_by_sample_steps",
        "tiling",
        "enable_prompt_comments",
        "samples_format",
        "jpeg_quality",
        "webp_lossless",
        "enable_pnginfo",
        "return_grid",
        "grid_save",
        "grid_format",
        "grid_only_if_multiple",
        "grid_prevent_empty_spots",
        "grid_background_color",
        "n_rows",
        "sd_lora",
        "sd_hypernetwork",
        "extra_networks_default_multiplier",
        "lora_add_hashes_to_infotext",
        "textual_inversion_add_hashes_to_infotext",
        "lora_functional",
        "lora_in_memory_limit",
    }
)
"""Options the resolver turns into something else than a setting of the engine."""


@functools.cache
def defaults() -> Mapping[str, Any]:
    """Every option of the peer with its default value (329 names)."""
    text = resources.files("atelier").joinpath("data/options.json").read_text(encoding="utf-8")
    return MappingProxyType(json.loads(text))
