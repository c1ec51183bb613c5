"""Requests as the published guides write them, for the tests that send them."""

from __future__ import annotations

from typing import Any

PAYLOAD: dict[str, Any] = {
    "enable_hr": False,
    "denoising_strength": 0,
    "hr_scale": 2,
    "hr_upscaler": "",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "prompt": "a police officer, (police badge:1.2)",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "sampler_name": "",
    "batch_size": 1,
    "n_iter": 1,
    "steps": 30,
    "cfg_scale": 6,
    "width": 512,
    "height": 512,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "negative_prompt": "easynegative, ((disfigured)), (((extra limbs)))",
    "eta": 0,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "script_args": [],
    "sampler_index": "Euler a",
    "script_name": "",
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}
"""The 39 fields of the published text-to-image payload, with the sampler under its old name."""

BODY: dict[str, Any] = {
    "task": "text-to-image",
    "model": "v1-5-pruned.ckpt",
    "username": "somebody",
    "txt2img_payload": PAYLOAD,
}

LORA_PROMPT = "a police officer, <lora:galGadotLora_v10:0.8>, (police badge:1.2)"

CONTROLNET: dict[str, Any] = {
    "controlnet": {
        "args": [
            {
                "enabled": True,
                "module": "scribble_hed",
                "model": "control_v11p_sd15_scribble [d4ba51ff]",
                "weight": 0.7,
                "image": "",
                "low_vram": False,
                "processor_res": 512,
                "threshold_a": 32,
                "threshold_b": 64,
                "guidance_start": 0,
                "guidance_end": 0.7,
            }
        ]
    }
}
"""One unit of the published `alwayson_scripts`."""
