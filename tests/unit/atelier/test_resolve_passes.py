"""What a request says of its second pass, its refiner, its embeddings and its file: sizes, names, limits, and
the entries the infotext gains.
"""

from __future__ import annotations

from typing import Any

import pytest

from atelier import infotext
from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, LimitExceeded, UnknownName
from atelier.contract.models import Catalogue, ModelKind
from atelier.contract.parts import HiresPass, ResolvedPart
from atelier.resolve import resolve_txt2img
from tests.unit.atelier.test_infotext import CATALOGUE, model

EMBEDDINGS = Catalogue(
    models=(
        *CATALOGUE.models,
        model(ModelKind.EMBEDDING, "tiny-ti.safetensors", "597f69290c"),
        model(ModelKind.EMBEDDING, "easy.safetensors", "01b4cb1cc8"),
    ),
    default_checkpoint="oracle",
)


def part(*, known: Catalogue = CATALOGUE, **request: Any) -> ResolvedPart:
    return resolve_txt2img({"prompt": "x", "seed": 5, **request}, known).parts[0]


def hires(**request: Any) -> HiresPass:
    second = part(enable_hr=True, **request).hires
    assert second is not None
    return second


def text(resolved: ResolvedPart) -> str:
    return infotext.render(resolved, 0)


# --- Hires fix


@pytest.mark.parametrize(
    ("request_fields", "upscaled", "size"),
    [
        ({}, (1024, 1536), (1024, 1536)),
        ({"hr_scale": 1.5}, (768, 1152), (768, 1152)),
        ({"hr_resize_x": 1024}, (1024, 1536), (1024, 1536)),
        ({"hr_resize_y": 1024}, (682, 1024), (682, 1024)),
        ({"hr_resize_x": 1024, "hr_resize_y": 1024}, (1024, 1536), (1024, 1024)),
        ({"hr_resize_x": 640, "hr_resize_y": 1536}, (1024, 1536), (640, 1536)),
    ],
)
def test_the_second_passs_size_is_reckoned_as_the_peer_does(
    request_fields: dict[str, Any], upscaled: tuple[int, int], size: tuple[int, int]
) -> None:
    second = hires(width=512, height=768, **request_fields)
    assert (second.upscaled, second.size) == (upscaled, size)


def test_the_old_fields_name_the_first_pass_beside_the_final_size() -> None:
    found = part(enable_hr=True, width=1024, height=768, firstphase_width=512, firstphase_height=384)
    assert (found.width, found.height) == (512, 384)
    assert found.hires is not None and found.hires.size == (1024, 768)
    assert "Size: 512x384" in text(found) and "Hires resize: 1024x768" in text(found)


def test_under_the_old_option_the_first_pass_has_512_pixels_worth_of_the_final_shape() -> None:
    old = {"use_old_hires_fix_width_height": True}
    found = part(enable_hr=True, width=1024, height=2048, override_settings=old)
    assert (found.width, found.height) == (384, 768)
    assert found.hires is not None and found.hires.size == (1024, 2048)


def test_what_the_second_pass_is_not_given_it_takes_from_the_first() -> None:
    second = hires(
        prompt="a cat", negative_prompt="blurry", steps=13, sampler_name="DPM++ 2M", scheduler="Beta"
    )
    assert (second.prompt, second.negative_prompt, second.steps) == ("a cat", "blurry", 13)
    assert (second.sampler, second.scheduler, second.upscaler) == ("DPM++ 2M", "Beta", "Latent")
    assert second.denoising_strength == 0.7 and second.checkpoint is None


def test_same_is_what_the_peers_menus_say_for_that() -> None:
    second = hires(
        sampler_name="Euler a",
        hr_sampler_name="Use same sampler",
        hr_scheduler="Use same scheduler",
        hr_checkpoint_name="Use same checkpoint",
    )
    assert (second.sampler, second.scheduler, second.checkpoint) == ("Euler a", "Automatic", None)


def test_automatic_means_the_second_samplers_own_schedule() -> None:
    assert hires(sampler_name="Euler", hr_sampler_name="DPM++ 2M").scheduler == "Karras"


def test_everything_of_its_own_stands_in_the_infotext_in_the_peers_order() -> None:
    found = part(
        enable_hr=True,
        hr_checkpoint_name="oracle_b",
        hr_sampler_name="DPM++ 2M",
        hr_scheduler="Exponential",
        hr_prompt="a, b",
        hr_negative_prompt="c",
        hr_scale=1.5,
        hr_second_pass_steps=7,
        hr_upscaler="Latent",
        denoising_strength=0.6,
    )
    shown = text(found)
    keys = [
        "Denoising strength: 0.6",
        "Hires checkpoint: oracle_b [011a51a745]",
        "Hires sampler: DPM++ 2M",
        'Hires prompt: "a, b"',
        "Hires negative prompt: c",
        "Hires schedule type: Exponential",
        "Hires upscale: 1.5",
        "Hires steps: 7",
        "Hires upscaler: Latent",
    ]
    places = [shown.index(key) for key in keys]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("request_fields", "error"),
    [
        ({"hr_upscaler": "Latnet"}, UnknownName),
        ({"hr_sampler_name": "Oiler"}, UnknownName),
        ({"hr_checkpoint_name": "nothing"}, UnknownName),
        ({"hr_scale": 9}, LimitExceeded),
        ({"width": 2048, "hr_scale": 4}, LimitExceeded),
        ({"hr_resize_x": 32}, LimitExceeded),
        ({"hr_second_pass_steps": 151}, LimitExceeded),
        ({"denoising_strength": 1.5}, LimitExceeded),
        ({"hr_prompt": "x" * (limits.MAX_PROMPT_CHARACTERS + 1)}, LimitExceeded),
    ],
)
def test_what_a_second_pass_cannot_be_is_refused(
    request_fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        hires(**request_fields)


def test_fields_of_hires_fix_without_it_are_named_as_ignored() -> None:
    resolution = resolve_txt2img({"hr_scale": 3.0, "denoising_strength": 0.4}, CATALOGUE)
    assert {each.field for each in resolution.ignored} == {"hr_scale", "denoising_strength"}
    assert resolution.parts[0].hires is None


# --- The refiner


def test_a_refiner_is_a_checkpoint_and_a_share() -> None:
    found = part(refiner_checkpoint="oracle_b", refiner_switch_at=0.8)
    assert found.refiner is not None and found.refiner.checkpoint.name == "oracle_b"
    assert "Refiner: oracle_b [011a51a745], Refiner switch at: 0.8" in text(found)


@pytest.mark.parametrize(
    "request_fields",
    [
        {"refiner_checkpoint": "None", "refiner_switch_at": 0.5},
        {"refiner_checkpoint": "oracle", "refiner_switch_at": 0.5},
        {"refiner_checkpoint": "oracle_b", "refiner_switch_at": 1.0},
    ],
)
def test_a_refiner_that_changes_nothing_is_none_and_said(request_fields: dict[str, Any]) -> None:
    resolution = resolve_txt2img(request_fields, CATALOGUE)
    assert resolution.parts[0].refiner is None
    assert "refiner_switch_at" in {each.field for each in resolution.ignored}


def test_an_inpainting_checkpoint_is_no_refiner() -> None:
    inpaint = CATALOGUE.models[1].model_copy(update={"family": "sd1-inpaint"})
    known = CATALOGUE.model_copy(update={"models": (CATALOGUE.models[0], inpaint)})
    with pytest.raises(InvalidRequest, match="cannot refine"):
        part(known=known, refiner_checkpoint="oracle_b", refiner_switch_at=0.5)


def test_a_checkpoint_of_another_family_cannot_go_on_with_the_latents() -> None:
    first = CATALOGUE.models[0].model_copy(update={"family": "sd1"})
    other = CATALOGUE.models[1].model_copy(update={"family": "sdxl"})
    known = CATALOGUE.model_copy(update={"models": (first, other)})
    for request in (
        {"refiner_checkpoint": "oracle_b"},
        {"enable_hr": True, "hr_checkpoint_name": "oracle_b"},
    ):
        with pytest.raises(InvalidRequest, match="another family"):
            part(known=known, **request)


# --- Embeddings, styles and comments, files


def test_the_embeddings_a_prompt_names_at_any_step_are_found_in_order() -> None:
    found = part(known=EMBEDDINGS, prompt="an (EASY:1.2) [cat:tiny-ti:0.5]", negative_prompt="easy")
    assert [each.name for each in found.embeddings] == ["easy", "tiny-ti"]
    assert 'TI hashes: "easy: 01b4cb1cc800, tiny-ti: 597f69290c00"' in text(found)


def test_part_of_a_word_is_no_embedding() -> None:
    assert part(known=EMBEDDINGS, prompt="uneasy, tiny titan").embeddings == ()


def test_hashes_of_embeddings_are_left_out_where_the_option_says_so() -> None:
    without = {"textual_inversion_add_hashes_to_infotext": False}
    found = part(known=EMBEDDINGS, prompt="easy", override_settings=without)
    assert len(found.embeddings) == 1 and "TI hashes" not in text(found)


def test_comments_go_after_the_styles_came() -> None:
    known = CATALOGUE.model_copy(update={"styles": {"wrap": ("a # {prompt}\nphoto", "")}})
    found = resolve_txt2img({"prompt": "x", "styles": ["wrap"]}, known).parts[0]
    assert "#" not in found.prompt and found.prompt.endswith("photo")
    kept = {"enable_prompt_comments": False}
    assert "#" in resolve_txt2img({"prompt": "a # b", "override_settings": kept}, known).parts[0].prompt


def test_the_file_follows_the_options_unless_it_goes_straight_into_an_answer() -> None:
    asked = {"override_settings": {"samples_format": "jpeg", "jpeg_quality": 60}}
    assert resolve_txt2img(asked, CATALOGUE).parts[0].format.name == "jpg"
    answered = resolve_txt2img(asked, CATALOGUE, answering=True)
    assert answered.parts[0].format.name == "png"
    assert [each.field for each in answered.ignored] == ["override_settings.samples_format"]
    own = resolve_txt2img({}, CATALOGUE, settings={"samples_format": "webp"}, answering=True)
    assert own.parts[0].format.name == "webp"


def test_a_format_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="samples_format"):
        part(override_settings={"samples_format": "bmp"})


def test_options_leave_entries_out_of_the_infotext() -> None:
    shown = text(part(override_settings={"add_model_hash_to_info": False, "add_version_to_infotext": False}))
    assert "Model hash" not in shown and "Version" not in shown and "Model: oracle" in shown


def test_padding_is_said_only_where_lengths_differ() -> None:
    pad = {"pad_cond_uncond": True}
    assert "Pad conds" not in text(part(override_settings=pad))
    assert "Pad conds: True" in text(part(prompt="red " * 80, override_settings=pad))


def test_overriding_a_setting_leaves_the_next_request_alone() -> None:
    settings = {"CLIP_stop_at_last_layers": 2}
    first = resolve_txt2img(
        {"override_settings": {"CLIP_stop_at_last_layers": 5}}, CATALOGUE, settings=settings
    )
    second = resolve_txt2img({}, CATALOGUE, settings=settings)
    assert [each.parts[0].settings.clip_skip for each in (first, second)] == [5, 2]
    assert settings == {"CLIP_stop_at_last_layers": 2}


@pytest.mark.parametrize(("family", "side"), [("sd1", 512), ("sd2", 768), ("sd2-v", 768), ("sdxl", 1024)])
def test_a_first_pass_far_beyond_the_training_size_is_warned_of(family: str, side: int) -> None:
    first = CATALOGUE.models[0].model_copy(update={"family": family})
    known = CATALOGUE.model_copy(update={"models": (first, *CATALOGUE.models[1:])})
    assert resolve_txt2img({"width": side, "height": 2 * side}, known).warnings == ()
    [warning] = resolve_txt2img({"width": 2 * side, "height": 2 * side}, known).warnings
    assert f"{side}x{side}" in warning and "hires fix" in warning


def test_whole_numbers_have_a_point_in_the_api_alone() -> None:
    asked = {"cfg_scale": 7, "enable_hr": True, "seed": 1}
    page, api = (resolve_txt2img(asked, CATALOGUE, answering=each).parts[0] for each in (False, True))
    assert "CFG scale: 7, " in text(page) and "Hires upscale: 2, " in text(page)
    assert "CFG scale: 7.0, " in text(api) and "Hires upscale: 2.0, " in text(api)
    assert "CFG scale: 7.5, " in text(resolve_txt2img({"cfg_scale": 7.5}, CATALOGUE).parts[0])


# --- What reviewers of requests would try


def test_a_strength_next_to_nothing_is_refused_rather_than_a_schedule_of_millions_of_steps() -> None:
    with pytest.raises(LimitExceeded, match=r"0\.01"):
        hires(denoising_strength=1e-9)
    assert hires(denoising_strength=0.01).denoising_strength == 0.01


def test_styles_that_double_the_prompt_are_stopped_at_the_limit() -> None:
    doubling = {str(number): ("{prompt}{prompt}", "") for number in range(64)}
    known = CATALOGUE.model_copy(update={"styles": doubling})
    with pytest.raises(LimitExceeded, match="20,000"):
        resolve_txt2img({"prompt": "abcd", "styles": list(doubling)}, known)


def test_a_joint_first_name_gives_its_schedule_to_the_second_pass_too() -> None:
    assert hires(sampler_name="DPM++ 2M Karras", hr_sampler_name="Euler").scheduler == "Karras"


def test_eta_reaches_the_samplers_of_both_passes() -> None:
    found = part(enable_hr=True, sampler_name="Euler a", hr_sampler_name="DDIM", eta=0.5)
    assert (found.settings.eta, found.settings.eta_ddim) == (0.5, 0.5)
    assert "Eta: 0.5" in text(found) and "Eta DDIM: 0.5" in text(found)


@pytest.mark.parametrize("options", [{"eta_ancestral": -1}, {"eta_noise_seed_delta": 10**30}, {"rho": -1}])
def test_options_out_of_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        part(override_settings=options)


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"prompt": "[a:easy:1.5]", "enable_hr": True}, ["easy"]),
        ({"prompt": "[a:easy:25]", "sampler_name": "Heun", "steps": 20}, ["easy"]),
        ({"prompt": "[a:easy:25]", "sampler_name": "Euler", "steps": 20}, []),
        ({"prompt": "a", "enable_hr": True, "hr_prompt": "easy"}, ["easy"]),
        ({"prompt": "[a:easy:0.5]", "override_settings": {"use_old_scheduling": True}}, ["easy"]),
    ],
)
def test_embeddings_are_found_where_any_pass_comes_to_say_them(
    request_fields: dict[str, Any], words: list[str]
) -> None:
    assert [each.name for each in part(known=EMBEDDINGS, **request_fields).embeddings] == words


@pytest.mark.parametrize(
    ("request_fields", "said"),
    [
        ({"sampler_name": "Euler", "override_settings": {"s_churn": 4}}, "Sigma churn: 4"),
        ({"sampler_name": "Euler", "s_churn": 4}, None),
        ({"sampler_name": "DPM++ 2M", "override_settings": {"s_churn": 4}}, None),
        ({"override_settings": {"s_min_uncond": 2, "s_min_uncond_all": True}}, "NGMS all steps: True"),
        (
            {"sampler_name": "DPM++ 2M", "override_settings": {"always_discard_next_to_last_sigma": True}},
            "Discard penultimate sigma: True",
        ),
        ({"sampler_name": "DPM2", "override_settings": {"always_discard_next_to_last_sigma": True}}, None),
        ({"scheduler": "Karras", "override_settings": {"rho": 7}}, None),
        ({"scheduler": "Karras", "override_settings": {"rho": 5}}, "Schedule rho: 5"),
        ({"sampler_name": "Euler", "override_settings": {"sigma_max": 10}}, None),
        (
            {"prompt": "[a:b:1.0]", "override_settings": {"use_old_scheduling": True}},
            "Old prompt editing timelines: True",
        ),
        ({"prompt": "[a:b:0.5]", "override_settings": {"use_old_scheduling": True}}, None),
    ],
)
def test_an_option_is_said_where_it_takes_part(request_fields: dict[str, Any], said: str | None) -> None:
    shown = text(part(**request_fields))
    labels = ("Sigma", "NGMS all", "Discard", "Schedule rho", "Schedule max", "Old prompt")
    assert (said in shown) if said else not any(label in shown for label in labels)


def test_a_style_that_names_its_place_a_thousand_times_is_not_even_made() -> None:
    known = CATALOGUE.model_copy(update={"styles": {"bb": ("{prompt}" * 2500, "")}})
    with pytest.raises(LimitExceeded):
        resolve_txt2img({"prompt": "x" * 19_000, "styles": ["bb"] * 20}, known)


def test_what_is_enlarged_beyond_the_limit_to_be_cut_again_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="enlarge"):
        hires(width=64, height=2048, hr_resize_x=4096, hr_resize_y=64)


def test_a_composition_of_thousands_is_refused() -> None:
    assert part(prompt=" AND ".join("a" * limits.MAX_COMPOSITION)).prompt
    with pytest.raises(LimitExceeded, match="AND"):
        part(prompt="a AND " * 3333)
