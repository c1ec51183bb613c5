"""The resolver: names become files, options become values, nothing falls back in silence."""

from __future__ import annotations

from typing import Any

import pytest

from atelier import infotext
from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, LimitExceeded, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelKind
from atelier.contract.parts import ResolvedPart
from atelier.resolve import resolve_txt2img
from tests.unit.atelier.test_infotext import CATALOGUE, model


def part(**request: Any) -> ResolvedPart:
    return resolve_txt2img({"prompt": "x", "seed": 5, **request}, CATALOGUE).parts[0]


def test_one_part_per_iteration_with_consecutive_seeds() -> None:
    parts = resolve_txt2img({"seed": 10, "n_iter": 3, "batch_size": 2}, CATALOGUE).parts
    assert [each.seeds for each in parts] == [(10, 11), (12, 13), (14, 15)]


def test_with_variation_the_seed_stays_and_the_subseed_counts() -> None:
    request = {"seed": 10, "subseed": 100, "subseed_strength": 0.5, "batch_size": 3}
    found = resolve_txt2img(request, CATALOGUE).parts[0]
    assert found.seeds == (10, 10, 10)
    assert found.subseeds == (100, 101, 102)


def test_a_seed_of_minus_one_is_drawn_once_per_job() -> None:
    drawn = iter([77, 88])
    parts = resolve_txt2img({"seed": -1, "n_iter": 2}, CATALOGUE, draw=lambda: next(drawn)).parts
    assert [each.seeds for each in parts] == [(77,), (78,)]


@pytest.mark.parametrize(
    ("request_fields", "kind", "nearest"),
    [
        ({"sampler_name": "Euler b"}, "sampler", "Euler a"),
        ({"scheduler": "Karas"}, "schedule type", "Karras"),
        ({"override_settings": {"sd_model_checkpoint": "orakle"}}, "checkpoint", "oracle.safetensors"),
        ({"override_settings": {"sd_vae": "alt_va"}}, "VAE", "alt_vae.safetensors"),
        ({"override_settings": {"randn_sauce": "CPU"}}, "option", "randn_source"),
        ({"script_name": "xyz plot"}, "script", "x/y/z plot"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    request_fields: dict[str, Any], kind: str, nearest: str
) -> None:
    with pytest.raises(UnknownName) as caught:
        part(**request_fields)
    assert caught.value.detail["kind"] == kind
    assert caught.value.detail["nearest"] == nearest
    assert caught.value.http_status == 422


@pytest.mark.parametrize(
    "name",
    ["oracle_b", "oracle_b.safetensors", "oracle_b.safetensors [011a51a745]", "011a51a745", "ORACLE_B"],
)
def test_a_checkpoint_answers_to_stem_file_title_and_hash(name: str) -> None:
    assert part(override_settings={"sd_model_checkpoint": name}).checkpoint.filename == "oracle_b.safetensors"


def test_the_request_wins_over_the_model_member_and_that_over_the_settings() -> None:
    settings = {"sd_model_checkpoint": "oracle", "CLIP_stop_at_last_layers": 2}
    by_setting = resolve_txt2img({"prompt": "x"}, CATALOGUE, settings=settings).parts[0]
    by_model = resolve_txt2img({"prompt": "x"}, CATALOGUE, model="oracle_b", settings=settings).parts[0]
    assert (by_setting.checkpoint.name, by_setting.settings.clip_skip) == ("oracle", 2)
    assert by_model.checkpoint.name == "oracle_b"
    override = {
        "prompt": "x",
        "override_settings": {"sd_model_checkpoint": "oracle", "CLIP_stop_at_last_layers": 3},
    }
    by_request = resolve_txt2img(override, CATALOGUE, model="oracle_b", settings=settings).parts[0]
    assert (by_request.checkpoint.name, by_request.settings.clip_skip) == ("oracle", 3)


def test_no_checkpoint_at_all_says_what_to_do() -> None:
    with pytest.raises(UnknownName, match="atelier model import"):
        resolve_txt2img({"prompt": "x"}, Catalogue())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("steps", limits.MAX_STEPS + 1), ("width", 0), ("width", 4),
        ("height", limits.MAX_SIDE + 8), ("batch_size", 0), ("n_iter", 0), ("cfg_scale", -1), ("seed", -2),
        ("seed", 2**64), ("subseed_strength", 1.5),
        ("prompt", "x" * (limits.MAX_PROMPT_CHARACTERS + 1)),
    ],
)  # fmt: skip
def test_numbers_beyond_the_limits_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(LimitExceeded, match=field):
        part(**{field: value})


@pytest.mark.parametrize(
    "field", ["cfg_scale", "prompt", "steps", "width", "seed", "styles", "override_settings"]
)
def test_an_explicit_null_means_the_default(field: str) -> None:
    assert part(**{field: None}).steps == 50


@pytest.mark.parametrize(
    ("field", "value"), [("width", "wide"), ("cfg_scale", float("nan")), ("styles", "a"), ("seed", 1.5)]
)
def test_a_value_of_the_wrong_type_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=field):
        part(**{field: value})


def test_unknown_fields_are_ignored_like_in_the_peer() -> None:
    assert part(frobnicate=1) == part()


def test_equal_requests_have_equal_recipes_and_any_difference_another() -> None:
    assert part().recipe_hash == part().recipe_hash
    others = [
        part(steps=51),
        part(seed=6),
        part(prompt="y"),
        part(override_settings={"CLIP_stop_at_last_layers": 2}),
    ]
    assert len({part().recipe_hash, *(each.recipe_hash for each in others)}) == 5


def test_a_recipe_read_back_is_the_same_part() -> None:
    found = part(sampler_name="DPM++ 2M", override_settings={"emphasis": "No norm"}, negative_prompt="(bad)")
    assert ResolvedPart.model_validate_json(found.recipe()) == found


def test_unknown_styles_are_named_and_known_ones_applied() -> None:
    resolution = resolve_txt2img({"prompt": "cat", "styles": ["wrap", "nope", "plain"]}, CATALOGUE)
    assert resolution.parts[0].prompt == "photo of cat, bright, sharp edges"
    assert [(each.field, "nope" in each.reason) for each in resolution.ignored] == [("styles", True)]


VALUES: dict[str, Any] = {
    "prompt": "y", "negative_prompt": "z", "styles": ["nope"], "seed": 9, "subseed": 4,
    "subseed_strength": 0.5, "seed_resize_from_h": 64, "seed_resize_from_w": 64,
    "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 2, "n_iter": 2, "steps": 7,
    "cfg_scale": 3.0, "width": 128, "height": 128, "restore_faces": True, "tiling": True,
    "do_not_save_samples": True, "do_not_save_grid": True, "eta": 0.5, "denoising_strength": 0.4,
    "s_min_uncond": 1.0, "s_churn": 2.0, "s_tmax": 5.0, "s_tmin": 0.1, "s_noise": 1.1,
    "override_settings": {"CLIP_stop_at_last_layers": 2}, "override_settings_restore_afterwards": False,
    "refiner_checkpoint": "oracle_b", "refiner_switch_at": 0.5, "disable_extra_networks": True,
    "firstpass_image": "aGk=", "comments": {"a": 1}, "enable_hr": True, "firstphase_width": 64,
    "firstphase_height": 64, "hr_scale": 3.0, "hr_upscaler": "Latent", "hr_second_pass_steps": 3,
    "hr_resize_x": 64, "hr_resize_y": 64, "hr_checkpoint_name": "oracle_b", "hr_sampler_name": "Euler",
    "hr_scheduler": "Karras", "hr_prompt": "h", "hr_negative_prompt": "h", "force_task_id": "t",
    "sampler_index": "Euler a", "script_name": "prompt matrix", "script_args": [1], "send_images": False,
    "save_images": True, "alwayson_scripts": {"refiner": {}}, "infotext": "Steps: 3, Seed: 4, Size: 64x64",
}  # fmt: skip


def test_the_table_of_values_covers_every_field() -> None:
    assert set(VALUES) == set(Txt2ImgPayload.model_fields)


@pytest.mark.parametrize("field", sorted(set(VALUES) - {"send_images"}))
def test_a_field_set_alone_changes_the_recipe_or_is_named_as_ignored(field: str) -> None:
    changed = resolve_txt2img({"seed": 5, field: VALUES[field]}, CATALOGUE, draw=lambda: 1)
    plain = resolve_txt2img({"seed": 5}, CATALOGUE, draw=lambda: 1)
    named = {each.field.split(".")[0] for each in changed.ignored}
    other = changed.parts != plain.parts or changed.arrangement != plain.arrangement
    assert other or field in named


def beside(*files: str) -> Catalogue:
    more = tuple(model(ModelKind.VAE, name, f"{number:010x}") for number, name in enumerate(files))
    return CATALOGUE.model_copy(update={"models": CATALOGUE.models + more})


@pytest.mark.parametrize(
    ("sd_vae", "files", "found"),
    [
        ("Automatic", ("oracle.vae.safetensors",), "oracle.vae.safetensors"),
        ("", ("oracle.vae.pt",), "oracle.vae.pt"),
        ("Automatic", ("oracle_soft.pt", "oracle.vae.pt"), "oracle.vae.pt"),
        ("Automatic", ("oracle_b.vae.safetensors",), None),
        ("Automatic", (), None),
        ("None", ("oracle.vae.safetensors",), None),
        ("alt_vae.safetensors", ("oracle.vae.safetensors",), "alt_vae.safetensors"),
    ],
)
def test_the_automatic_vae_is_the_file_named_after_the_checkpoint(
    sd_vae: str, files: tuple[str, ...], found: str | None
) -> None:
    request = {"prompt": "x", "override_settings": {"sd_vae": sd_vae}}
    first = resolve_txt2img(request, beside(*files)).parts[0]
    assert (first.vae and first.vae.filename) == found
    told = infotext.render(first, 0)
    assert (f"VAE: {found}" in told and "VAE hash: " in told) if found else "VAE" not in told


@pytest.mark.parametrize(
    ("preferred", "sd_vae", "named_wins", "found"),
    [
        ("alt_vae.safetensors", "Automatic", True, "alt_vae.safetensors"),
        ("alt_vae", None, True, "alt_vae.safetensors"),
        ("None", "Automatic", True, None),
        ("", "Automatic", True, "oracle.vae.pt"),
        ("alt_vae.safetensors", "None", True, None),
        ("alt_vae.safetensors", "oracle.vae.pt", True, "oracle.vae.pt"),
        ("alt_vae.safetensors", "oracle.vae.pt", False, "alt_vae.safetensors"),
        ("None", "alt_vae", False, None),
        ("", "alt_vae", False, "oracle.vae.pt"),
    ],
)
def test_the_vae_preferred_for_a_checkpoint_is_the_automatic_one(
    preferred: str, sd_vae: str | None, named_wins: bool, found: str | None
) -> None:
    catalogue = beside("oracle.vae.pt")
    [oracle] = [each for each in catalogue.of_kind(ModelKind.CHECKPOINT) if each.name == "oracle"]
    catalogue = catalogue.model_copy(update={"preferred_vaes": {oracle.sha256: preferred}})
    options = {"sd_vae": sd_vae, "sd_vae_overrides_per_model_preferences": named_wins}
    result = resolve_txt2img({"prompt": "x", "override_settings": options}, catalogue)
    assert (result.parts[0].vae and result.parts[0].vae.filename) == found
    assert result.warnings == () and result.ignored == ()


def test_a_preferred_vae_that_is_gone_is_told_and_a_named_one_with_no_preference_still_counts() -> None:
    [oracle, other] = CATALOGUE.of_kind(ModelKind.CHECKPOINT)[:2]
    catalogue = CATALOGUE.model_copy(update={"preferred_vaes": {oracle.sha256: "gone.pt"}})
    result = resolve_txt2img({"prompt": "x"}, catalogue, model=oracle.title)
    assert result.parts[0].vae is None
    assert result.warnings == (
        f"{oracle.filename} prefers the VAE gone.pt, which is not here: it is drawn without.",
    )
    options = {"sd_vae": "alt_vae", "sd_vae_overrides_per_model_preferences": False}
    named = resolve_txt2img({"override_settings": options}, catalogue, model=other.title)
    assert named.parts[0].vae and named.parts[0].vae.filename == "alt_vae.safetensors"
    assert named.warnings == ()


def test_every_checkpoint_of_a_part_has_its_own_automatic_vae() -> None:
    request = {"prompt": "x", "refiner_checkpoint": "oracle_b", "refiner_switch_at": 0.5}
    second = {"enable_hr": True, "hr_checkpoint_name": "oracle_b", "hr_scale": 2, "denoising_strength": 0.5}
    first = resolve_txt2img(request | second, beside("oracle_b.vae.pt", "oracle.vae.pt")).parts[0]
    assert first.vae and first.vae.filename == "oracle.vae.pt"
    assert first.refiner and first.refiner.vae and first.refiner.vae.filename == "oracle_b.vae.pt"
    assert first.hires and first.hires.vae and first.hires.vae.filename == "oracle_b.vae.pt"
