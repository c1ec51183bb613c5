"""The txt2img tab's controls with the peer's labels, ranges, defaults and element ids (AUTOMATIC1111
v1.10.1).
"""

from __future__ import annotations

from atelier.contract import limits
from atelier.vocabulary import LATENT_UPSCALERS, PIXEL_UPSCALERS, SAMPLERS, SCHEDULERS
from webui.params.table import Check, Choice, Choices, Control, Number, Slider, Text

KEYS = "Press Ctrl+Enter to generate, Alt+Enter to skip, Esc to interrupt"

SAMPLER_NAMES = tuple(sampler.name for sampler in SAMPLERS if sampler.served)
SCHEDULE_LABELS = tuple(scheduler.label for scheduler in SCHEDULERS if scheduler.served)
HIRES_UPSCALERS = (*LATENT_UPSCALERS, *PIXEL_UPSCALERS)

SAME_CHECKPOINT, SAME_SAMPLER, SAME_SCHEDULER = (
    f"Use same {thing}" for thing in ("checkpoint", "sampler", "scheduler")
)
NO_REFINER = "None"

EXTRA = "txt2img_subseed_show"
"""Element id of the seed row's "Extra" checkbox."""

HIRES, REFINER = "txt2img_hr", "txt2img_enable"
"""Element ids of the two accordions whose header is a switch."""


def switch_of(accordion: str) -> str:
    """Element id of the checkbox in an accordion's header."""
    return f"{accordion}-checkbox"


PROMPTS = (
    Text("prompt", "Prompt", "txt2img_prompt", "", placeholder=f"Prompt\n({KEYS})"),
    Text(
        "negative_prompt",
        "Negative prompt",
        "txt2img_neg_prompt",
        "",
        placeholder=f"Negative prompt\n({KEYS})",
    ),
)
COUNTERS = {"txt2img_prompt": "txt2img_token_counter", "txt2img_neg_prompt": "txt2img_negative_token_counter"}
"""Element ids of the token counters by those of the prompts."""

VAE = Choice(
    "", "SD VAE", "setting_sd_vae", "Automatic", choices=("Automatic", "None"), callers=True, same=True
)
CLIP_SKIP = Slider("", "Clip skip", "setting_CLIP_stop_at_last_layers", 1, minimum=1, maximum=12)
QUICK = (VAE, CLIP_SKIP)
"""Quick settings above the tabs, beside the checkpoint."""
OPTION_OF = {VAE.elem_id: "sd_vae", CLIP_SKIP.elem_id: "CLIP_stop_at_last_layers"}
"""Quick setting -> the option it sets for a request."""

ENDPOINT = Choice(
    "", "Endpoint", "atelier_endpoint", "automatic", choices=("automatic",), callers=True, same=True
)
"""Where the pictures are made. It changes none of them, so it is no field of the form."""

STYLES = Choices("styles", "Styles", "txt2img_styles", [])
OVERRIDES = Choices("", "Override settings", "txt2img_override_settings", [])

SAMPLING = (
    Choice("sampler_name", "Sampling method", "txt2img_sampling", SAMPLER_NAMES[0], choices=SAMPLER_NAMES),
    Choice("scheduler", "Schedule type", "txt2img_scheduler", SCHEDULE_LABELS[0], choices=SCHEDULE_LABELS),
    Slider("steps", "Sampling steps", "txt2img_steps", 20, minimum=1, maximum=limits.MAX_STEPS),
)

_IN_HIRES = switch_of(HIRES)
HIRES_SWITCH = Check("enable_hr", "Hires. fix", _IN_HIRES, False, optional=True)
HIRES_PASS = (
    Choice("hr_upscaler", "Upscaler", "txt2img_hr_upscaler", "Latent", _IN_HIRES, choices=HIRES_UPSCALERS),
    Slider(
        "hr_second_pass_steps",
        "Hires steps",
        "txt2img_hires_steps",
        0,
        _IN_HIRES,
        maximum=limits.MAX_STEPS,
    ),
    Slider(
        "denoising_strength",
        "Denoising strength",
        "txt2img_denoising_strength",
        0.7,
        _IN_HIRES,
        step=0.01,
    ),
)
HIRES_SIZE = (
    Slider("hr_scale", "Upscale by", "txt2img_hr_scale", 2.0, _IN_HIRES, minimum=1, maximum=4, step=0.05),
    Slider(
        "hr_resize_x", "Resize width to", "txt2img_hr_resize_x", 0, _IN_HIRES, maximum=limits.MAX_SIDE, step=8
    ),
    Slider(
        "hr_resize_y",
        "Resize height to",
        "txt2img_hr_resize_y",
        0,
        _IN_HIRES,
        maximum=limits.MAX_SIDE,
        step=8,
    ),
)
HIRES_CHECKPOINT = Choice(
    "hr_checkpoint_name",
    "Checkpoint",
    "hr_checkpoint",
    SAME_CHECKPOINT,
    _IN_HIRES,
    choices=(SAME_CHECKPOINT,),
    same=True,
    callers=True,
)
HIRES_SAMPLING = (
    Choice(
        "hr_sampler_name",
        "Hires sampling method",
        "hr_sampler",
        SAME_SAMPLER,
        _IN_HIRES,
        choices=(SAME_SAMPLER, *SAMPLER_NAMES),
        same=True,
    ),
    Choice(
        "hr_scheduler",
        "Hires schedule type",
        "hr_scheduler",
        SAME_SCHEDULER,
        _IN_HIRES,
        choices=(SAME_SCHEDULER, *SCHEDULE_LABELS),
        same=True,
    ),
)
HIRES_PROMPTS = (
    Text(
        "hr_prompt",
        "Hires prompt",
        "hires_prompt",
        "",
        _IN_HIRES,
        placeholder="Hires prompt\n(empty: the prompt of the first pass)",
        optional=True,
    ),
    Text(
        "hr_negative_prompt",
        "Hires negative prompt",
        "hires_neg_prompt",
        "",
        _IN_HIRES,
        placeholder="Hires negative prompt\n(empty: the negative prompt of the first pass)",
        optional=True,
    ),
)

_IN_REFINER = switch_of(REFINER)
REFINER_SWITCH = Check("", "Refiner", _IN_REFINER, False)
REFINER_CHECKPOINT = Choice(
    "refiner_checkpoint",
    "Checkpoint",
    "txt2img_checkpoint",
    NO_REFINER,
    _IN_REFINER,
    choices=(NO_REFINER,),
    same=True,
    callers=True,
)
REFINER_SWITCH_AT = Slider(
    "refiner_switch_at", "Switch at", "txt2img_switch_at", 0.8, _IN_REFINER, minimum=0.01, step=0.01
)

SIZE = (
    Slider("width", "Width", "txt2img_width", 512, minimum=limits.MIN_SIDE, maximum=limits.MAX_SIDE, step=8),
    Slider(
        "height", "Height", "txt2img_height", 512, minimum=limits.MIN_SIDE, maximum=limits.MAX_SIDE, step=8
    ),
)
BATCH = (
    Slider("n_iter", "Batch count", "txt2img_batch_count", 1, minimum=1, maximum=limits.MAX_BATCH_COUNT),
    Slider("batch_size", "Batch size", "txt2img_batch_size", 1, minimum=1, maximum=limits.MAX_BATCH_SIZE),
)
GUIDANCE = (Slider("cfg_scale", "CFG Scale", "txt2img_cfg_scale", 7.0, minimum=1, maximum=30, step=0.5),)
SEED = (
    Number("seed", "Seed", "txt2img_seed", -1),
    Check("", "Extra", EXTRA, False),
    Check("tiling", "Tiling", "txt2img_tiling", False, optional=True),
)
VARIATION = (
    Number("subseed", "Variation seed", "txt2img_subseed", -1, within=EXTRA),
    Slider("subseed_strength", "Variation strength", "txt2img_subseed_strength", 0.0, EXTRA, step=0.01),
)
SEED_RESIZE = (
    Slider(
        "seed_resize_from_w",
        "Resize seed from width",
        "txt2img_seed_resize_from_w",
        0,
        EXTRA,
        maximum=limits.MAX_SIDE,
        step=8,
        optional=True,
    ),
    Slider(
        "seed_resize_from_h",
        "Resize seed from height",
        "txt2img_seed_resize_from_h",
        0,
        EXTRA,
        maximum=limits.MAX_SIDE,
        step=8,
        optional=True,
    ),
)

TXT2IMG: tuple[Control, ...] = (
    *PROMPTS,
    STYLES,
    *SAMPLING,
    HIRES_SWITCH,
    *HIRES_PASS,
    *HIRES_SIZE,
    HIRES_CHECKPOINT,
    *HIRES_SAMPLING,
    *HIRES_PROMPTS,
    REFINER_SWITCH,
    REFINER_CHECKPOINT,
    REFINER_SWITCH_AT,
    *SIZE,
    *BATCH,
    *GUIDANCE,
    *SEED,
    *VARIATION,
    *SEED_RESIZE,
)
"""The controls that fill fields of the request one by one."""
