"""Requests as the published guides write them (docs/requirements.md), read by the resolver."""

from __future__ import annotations

from atelier.contract.generation import Txt2ImgPayload
from atelier.resolve import resolve_txt2img
from tests.published_requests import PAYLOAD
from tests.unit.atelier.test_infotext import CATALOGUE

PUBLISHED_FIELDS = (
    "enable_hr denoising_strength hr_scale hr_upscaler hr_second_pass_steps hr_resize_x hr_resize_y "
    "prompt styles seed subseed subseed_strength seed_resize_from_h seed_resize_from_w sampler_name "
    "batch_size n_iter steps cfg_scale width height restore_faces tiling do_not_save_samples "
    "do_not_save_grid negative_prompt eta s_churn s_tmax s_tmin s_noise override_settings "
    "override_settings_restore_afterwards script_args sampler_index script_name send_images "
    "save_images alwayson_scripts"
).split()


def test_every_published_field_is_a_field_of_the_request() -> None:
    assert len(PUBLISHED_FIELDS) == 39
    assert set(PUBLISHED_FIELDS) == set(PAYLOAD)
    assert set(PUBLISHED_FIELDS) <= set(Txt2ImgPayload.model_fields)


def test_the_legacy_name_of_the_sampler_counts_where_the_other_is_empty() -> None:
    assert resolve_txt2img(PAYLOAD, CATALOGUE).parts[0].sampler == "Euler a"
    assert resolve_txt2img({**PAYLOAD, "sampler_name": "DPM++ 2M"}, CATALOGUE).parts[0].sampler == "DPM++ 2M"


def test_the_published_prompts_stay_whole_and_their_settings_are_taken() -> None:
    part = resolve_txt2img(PAYLOAD, CATALOGUE).parts[0]
    assert (part.prompt, part.negative_prompt) == (PAYLOAD["prompt"], PAYLOAD["negative_prompt"])
    assert (part.steps, part.cfg_scale, part.width, part.height) == (30, 6.0, 512, 512)
