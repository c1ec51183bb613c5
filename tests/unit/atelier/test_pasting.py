"""Infotexts as requests: what each entry sets, what wins, and what is left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier import infotext, options
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelKind
from atelier.contract.parts import ResolvedPart
from atelier.pasting import OPTION_LABELS, Pasted, filled, paste
from atelier.resolve import resolve_txt2img
from atelier.vocabulary import find_sampler
from tests.unit.atelier.test_infotext import CATALOGUE, model, plain

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x96"


def pasted(
    more: str = "", *, line: str = LINE, catalogue: Catalogue | None = CATALOGUE, **settings: Any
) -> Pasted:
    text = f"a cat\nNegative prompt: a dog\n{line}, {more or 'Model: oracle'}"
    return paste(text, catalogue=CATALOGUE, settings=settings)[1]


def reasons(found: Pasted) -> dict[str, str]:
    return {each.field: each.reason for each in found.ignored}


def test_the_plain_entries_become_fields_of_their_types() -> None:
    assert pasted().fields == {
        "prompt": "a cat",
        "negative_prompt": "a dog",
        "steps": 20,
        "sampler_name": "Euler a",
        "scheduler": "Automatic",
        "cfg_scale": 7.0,
        "seed": 1,
        "width": 64,
        "height": 96,
        "enable_hr": False,
        "refiner_checkpoint": None,
        "subseed_strength": 0.0,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
    }
    assert pasted().overrides == {}
    assert pasted().ignored == ()


def test_a_text_without_parameters_sets_its_prompts_alone() -> None:
    assert paste("a cat")[1] == Pasted({"prompt": "a cat", "negative_prompt": ""})


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        ("DPM++ 2M Karras", "", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M Exponential", "", ("DPM++ 2M", "Exponential")),
        ("DPM++ 2M", "Karras", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M SDE", "Karras", ("DPM++ 2M SDE", "Karras")),
        ("k_euler", "SGMUniform", ("Euler", "SGM Uniform")),
    ],
)
def test_sampler_and_schedule_are_as_the_peers_menus_show_them(
    sampler: str, schedule: str, expected: tuple[str, str]
) -> None:
    line = LINE.replace("Euler a", sampler) + (f", Schedule type: {schedule}" if schedule else "")
    found = pasted(line=line).fields
    assert (found["sampler_name"], found["scheduler"]) == expected


def test_variation_and_seed_resize_keep_width_and_height_apart() -> None:
    found = pasted("Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 512x768").fields
    assert (found["subseed"], found["subseed_strength"]) == (9, 0.25)
    assert (found["seed_resize_from_w"], found["seed_resize_from_h"]) == (512, 768)


def test_hires_fix_is_taken_over_whole() -> None:
    found = pasted(
        "Denoising strength: 0.7, Hires checkpoint: oracle_b [011a51a745], Hires sampler: DPM++ 2M, "
        'Hires prompt: "a, b", Hires schedule type: Exponential, Hires upscale: 2.0, Hires steps: 5, '
        "Hires upscaler: Latent (nearest)"
    ).fields
    assert {name: value for name, value in found.items() if name.startswith(("hr_", "enable", "den"))} == {
        "denoising_strength": 0.7,
        "enable_hr": True,
        "hr_scale": 2.0,
        "hr_upscaler": "Latent (nearest)",
        "hr_second_pass_steps": 5,
        "hr_resize_x": 0,
        "hr_resize_y": 0,
        "hr_checkpoint_name": "oracle_b.safetensors [011a51a745]",
        "hr_sampler_name": "DPM++ 2M",
        "hr_scheduler": "Exponential",
        "hr_prompt": "a, b",
        "hr_negative_prompt": "",
    }


def test_a_second_sampler_runs_with_the_schedule_of_the_first_pass_where_none_is_named() -> None:
    line = LINE.replace("Euler a", "DPM++ 2M") + ", Schedule type: Karras"
    found = pasted("Denoising strength: 0.5, Hires upscale: 2, Hires sampler: DPM++ 2M SDE", line=line).fields
    assert (found["hr_sampler_name"], found["hr_scheduler"]) == ("DPM++ 2M SDE", "Karras")


def test_a_second_pass_like_the_first_says_so() -> None:
    found = pasted("Denoising strength: 0.5, Hires resize: 112x0").fields
    assert (found["hr_resize_x"], found["hr_sampler_name"]) == (112, "Use same sampler")
    assert (found["hr_scheduler"], found["hr_checkpoint_name"]) == (
        "Use same scheduler",
        "Use same checkpoint",
    )


def test_a_strength_alone_is_no_hires_fix() -> None:
    # The peer turns it on for every text of an image-to-image picture.
    assert pasted("Denoising strength: 0.7").fields["enable_hr"] is False


def test_the_refiner_is_taken_over_by_its_title() -> None:
    found = pasted("Refiner: oracle_b [011a51a745], Refiner switch at: 0.5").fields
    assert found["refiner_checkpoint"] == "oracle_b.safetensors [011a51a745]"
    assert found["refiner_switch_at"] == 0.5


def test_options_become_overrides_of_their_types_where_they_differ_from_what_is_set() -> None:
    found = pasted(
        "Clip skip: 2, ENSD: 31337, RNG: CPU, Eta: 0.5, Discard penultimate sigma: True, Tiling: True, "
        "Emphasis: No norm, NGMS: 2.0, Old prompt editing timelines: True, "
        "Noise Schedule: Zero Terminal SNR, VAE: alt_vae.safetensors"
    )
    assert found.overrides == {
        "CLIP_stop_at_last_layers": 2,
        "eta_noise_seed_delta": 31337,
        "randn_source": "CPU",
        "eta_ancestral": 0.5,
        "always_discard_next_to_last_sigma": True,
        "tiling": True,
        "emphasis": "No norm",
        "s_min_uncond": 2.0,
        "use_old_scheduling": True,
        "sd_noise_schedule": "Zero Terminal SNR",
        "sd_vae": "alt_vae.safetensors",
    }
    assert type(found.overrides["CLIP_stop_at_last_layers"]) is int


def test_what_is_set_already_needs_no_override_and_what_is_set_otherwise_does() -> None:
    assert "CLIP_stop_at_last_layers" not in pasted("Clip skip: 2", CLIP_stop_at_last_layers=2).overrides
    assert pasted("Model: x", CLIP_stop_at_last_layers=2).overrides["CLIP_stop_at_last_layers"] == 1


def test_every_label_stands_for_an_option_of_the_peer() -> None:
    assert set(OPTION_LABELS.values()) <= set(options.defaults())
    assert len(set(OPTION_LABELS.values())) == len(OPTION_LABELS)


def test_the_checkpoint_is_taken_over_only_where_the_user_wants_it() -> None:
    named = "Model hash: 011a51a745, Model: oracle_b"
    assert pasted(named).overrides == {}
    wanted = pasted(named, disable_weights_auto_swap=False)
    assert wanted.overrides == {"sd_model_checkpoint": "oracle_b.safetensors [011a51a745]"}
    by_name = pasted("Model hash: 0000000000, Model: oracle_b", disable_weights_auto_swap=False)
    assert by_name.overrides == wanted.overrides


def test_models_that_are_not_here_are_left_out_with_a_reason() -> None:
    found = pasted(
        "Model hash: 0123456789, Model: gone, VAE: gone.vae.pt, Refiner: gone [00], Refiner switch at: 0.5, "
        "Denoising strength: 0.5, Hires upscale: 2, Hires checkpoint: gone [00]",
        disable_weights_auto_swap=False,
    )
    assert found.overrides == {}
    assert (found.fields["refiner_checkpoint"], "refiner_switch_at" in found.fields) == (None, False)
    assert found.fields["hr_checkpoint_name"] == "Use same checkpoint"
    assert sorted(reasons(found)) == [
        "infotext.Hires checkpoint",
        "infotext.Model hash",
        "infotext.Refiner",
        "infotext.VAE",
    ]


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ("Variation seed: one", "Variation seed"),
        ("Variation seed strength: nan", "Variation seed strength"),
        ("Batch size: " + "9" * 5000, "Batch size"),
        ("Clip skip: 99", "Clip skip"),
        ("Clip skip: -1e999", "Clip skip"),
        ("Eta: 1e999", "Eta"),
        ("ENSD: 1e3", "ENSD"),
        ("Emphasis: Loud", "Emphasis"),
        ("RNG: dice", "RNG"),
        ("Tiling: perhaps", "Tiling"),
        ("Noise Schedule: Other", "Noise Schedule"),
        ("Denoising strength: 0.5, Hires steps: many, Hires upscale: 2", "Hires steps"),
        ("Denoising strength: 0.5, Hires upscale: 1, Hires sampler: Nobody", "Hires sampler"),
        ("Schedule type: Nobody", "Sampler"),
    ],
)
def test_nonsense_is_left_out_with_a_reason(more: str, label: str) -> None:
    found = pasted(more)
    assert list(reasons(found)) == [f"infotext.{label}"]
    resolve_txt2img({**found.fields, "override_settings": found.overrides}, CATALOGUE)


@pytest.mark.parametrize("wrong", ["Steps: 0", "Seed: 1.5", "Size: 8x8", "CFG scale: -1", "Sampler: Nobody"])
def test_main_entries_beyond_what_may_be_asked_for_are_left_out(wrong: str) -> None:
    label = wrong.split(":")[0]
    entries = [each for each in LINE.split(", ") if not each.startswith(label)]
    found = pasted(line=", ".join([wrong, *entries, "Model: x"]))
    assert {each.removeprefix("infotext.").split("-")[0] for each in reasons(found)} == {label}


def test_what_the_request_sets_wins_and_the_rest_is_filled() -> None:
    text = f"a cat\nNegative prompt: a dog\n{LINE}, Clip skip: 2, RNG: NV"
    request = Txt2ImgPayload(
        negative_prompt="", steps=3, infotext=text, override_settings={"randn_source": "CPU"}
    )
    full = filled(request, text, catalogue=CATALOGUE)
    assert (full.prompt, full.negative_prompt, full.steps, full.seed) == ("a cat", "", 3, 1)
    assert full.override_settings == {"randn_source": "CPU", "CLIP_stop_at_last_layers": 2}
    assert full.infotext == text


def test_the_older_field_for_the_sampler_wins_too() -> None:
    full = filled(Txt2ImgPayload(sampler_index="Heun"), f"x\n{LINE}")
    assert (full.sampler_name, full.sampler_index) == (None, "Heun")


def test_the_recorded_request_with_an_infotext_is_filled_like_the_peers(golden: Path) -> None:
    case = json.loads((golden / "cases" / "infotext-field.json").read_text())
    request = Txt2ImgPayload.model_validate(case["payload"])
    full = filled(request, case["payload"]["infotext"], catalogue=CATALOGUE)
    resolved = resolve_txt2img(full.model_copy(update={"infotext": None}), CATALOGUE, answering=True)
    assert plain(infotext.render(resolved.parts[0], 0)) == plain(case["info"]["infotexts"][0])


def test_every_recorded_text_pastes_into_a_request_that_gives_the_text_again(golden: Path) -> None:
    compared = 0
    later = ("Face restoration", "Script:", "Lora hashes", "TI hashes", "_v,", "_inpaint,", "oracle_b, ")
    for file in sorted((golden / "cases").glob("*.json")):
        case = json.loads(file.read_text())
        if not case["route"].endswith("txt2img") or case["name"].startswith("cn-"):
            continue
        text = case["info"]["infotexts"][0]
        if any(mark in text for mark in later) or "Model hash" not in text:
            continue
        _, found = paste(text, catalogue=CATALOGUE.model_copy(update={"styles": {}}))
        resolved = resolve_txt2img(
            {**found.fields, "override_settings": found.overrides}, CATALOGUE, answering=True
        )
        assert plain(infotext.render(resolved.parts[0], 0)) == plain(text), case["name"]
        compared += 1
    assert compared >= 100


def test_styles_are_found_and_put_back_as_the_user_likes() -> None:
    text = f"photo of a cat, bright\nNegative prompt: dark\n{LINE}"
    assert paste(text, catalogue=CATALOGUE)[1].fields["styles"] == ["wrap"]
    discarded = paste(text, catalogue=CATALOGUE, settings={"infotext_styles": "Discard"})[1].fields
    assert ("styles" in discarded, discarded["prompt"]) == (False, "a cat")
    ignored = paste(text, catalogue=CATALOGUE, settings={"infotext_styles": "Ignore"})[1].fields
    assert ("styles" in ignored, ignored["prompt"]) == (False, "photo of a cat, bright")
    applied = paste(f"a cat\n{LINE}", catalogue=CATALOGUE, settings={"infotext_styles": "Apply"})[1].fields
    assert applied["styles"] == []


def test_entries_the_user_does_not_want_pasted_are_passed_over() -> None:
    parsed, found = paste(f"x\n{LINE}", settings={"infotext_skip_pasting": ["Seed"]})
    assert ("Seed" in parsed, "seed" in found.fields) == (False, False)


def test_networks_are_known_by_their_hashes() -> None:
    digest, kohyas = "0123456789ab" + "0" * 52, "fedcba987654" + "0" * 52
    lora = model(ModelKind.LORA, "new.safetensors", digest[:10])
    lora = lora.model_copy(update={"sha256": digest, "addnet_hash": kohyas, "alias": "trained"})
    word = model(ModelKind.EMBEDDING, "hands.pt", "1111111111").model_copy(update={"sha256": "1" * 64})
    calm = model(ModelKind.HYPERNETWORK, "calm.pt", "2222222222").model_copy(update={"sha256": "2" * 64})
    catalogue = Catalogue(models=(lora, word, calm))

    def prompt(text: str, entries: str) -> str:
        return str(paste(f"{text}\n{LINE}, {entries}", catalogue=catalogue)[1].fields["prompt"])

    for short in (kohyas[:12], kohyas, kohyas[:12].upper(), digest[:10], digest[:12]):
        assert prompt("<lora:old:1> cat", f'Lora hashes: "old: {short}"') == "<lora:new:1> cat"
    assert prompt("<lora:trained:1>", f'Lora hashes: "trained: {kohyas[:12]}"') == "<lora:trained:1>"
    assert prompt("bad_hands cat", f'TI hashes: "bad_hands: {"1" * 12}"') == "hands cat"
    assert prompt("<hypernet:old:1>", f'Hypernet hashes: "old: {"2" * 10}"') == "<hypernet:calm:1>"
    twin = lora.model_copy(update={"name": "twin", "filename": "twin.safetensors", "sha256": "3" * 64})
    catalogue = Catalogue(models=(lora, twin.model_copy(update={"addnet_hash": "4" * 64})))
    again = prompt("<lora:trained:1>", f'Lora hashes: "trained: {"4" * 12}"')
    assert again == "<lora:twin:1>", "an alias of two files names neither"


def test_a_network_that_is_not_here_is_told_and_so_is_another_file_under_its_name() -> None:
    lora = model(ModelKind.LORA, "cat.safetensors", "0123456789")
    text = f'<lora:cat:1> <lora:dog:1>\n{LINE}, Lora hashes: "cat: ffffffffffff, dog: eeeeeeeeeeee"'
    found = paste(text, catalogue=Catalogue(models=(lora,)))[1]
    assert found.fields["prompt"] == "<lora:cat:1> <lora:dog:1>"
    assert [tuple(each) for each in found.ignored] == [
        ("infotext.Lora hashes", "cat (ffffffffffff): the file of that name here is another one"),
        ("infotext.Lora hashes", "dog (eeeeeeeeeeee): no file here has that hash"),
    ]
    assert paste(text)[1].ignored == ()


LABELS = [*OPTION_LABELS, "Steps", "Seed", "Size", "Sampler", "Denoising strength", "Hires upscale", "VAE"]


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.text(max_size=12)), max_size=8))
def test_whatever_the_entries_hold_the_request_can_be_built(entries: list[tuple[str, str]]) -> None:
    line = ", ".join(f"{label}: {infotext.quote(value)}" for label, value in entries)
    text = f"x\nSteps: 1, Model: a, Seed: 1, {line}".encode("utf-8", "replace").decode()
    full = filled(Txt2ImgPayload(), text, catalogue=CATALOGUE)
    assert Txt2ImgPayload.model_validate(full.model_dump()) == full


OPTIONS = {
    "CLIP_stop_at_last_layers": st.integers(1, 12),
    "randn_source": st.sampled_from(["GPU", "CPU", "NV"]),
    "emphasis": st.sampled_from(["Original", "No norm", "Ignore", "None"]),
    "s_min_uncond": st.sampled_from([0.0, 1.5]),
    "skip_early_cond": st.sampled_from([0.0, 0.25]),
    "sd_noise_schedule": st.sampled_from(["Default", "Zero Terminal SNR"]),
    "use_downcasted_alpha_bar": st.booleans(),
    "sgm_noise_multiplier": st.booleans(),
    "always_discard_next_to_last_sigma": st.booleans(),
    "sigma_min": st.sampled_from([0.0, 0.1]),
    "sigma_max": st.sampled_from([0.0, 10.0]),
    "rho": st.sampled_from([0.0, 5.0]),
    "eta_ancestral": st.sampled_from([1.0, 0.5]),
    "img2img_extra_noise": st.sampled_from([0.0, 0.1]),
}
FIELDS = {
    "sampler_name": st.sampled_from(["Euler a", "DPM++ 2M", "DPM2 a"]),
    "scheduler": st.sampled_from(["Karras", "Exponential"]),
    "steps": st.integers(1, 150),
    "cfg_scale": st.sampled_from([1.0, 6.5, 7.0]),
    "seed": st.integers(0, 2**32),
    "tiling": st.booleans(),
    "enable_hr": st.just(True),
    "hr_upscaler": st.sampled_from(["Latent", "Lanczos", "None"]),
    "hr_second_pass_steps": st.integers(0, 50),
    "denoising_strength": st.sampled_from([0.3, 0.75]),
    "hr_sampler_name": st.sampled_from(["Euler a", "DPM++ 2M SDE"]),
    "hr_prompt": st.sampled_from(["", "another (thing:1.2), here"]),
    "hr_scale": st.sampled_from([1.5, 2.0]),
    "refiner_checkpoint": st.just("oracle_b"),
    "refiner_switch_at": st.sampled_from([0.5, 0.8]),
}


@given(st.fixed_dictionaries(FIELDS), st.fixed_dictionaries({}, optional=OPTIONS))
def test_what_is_said_of_a_picture_makes_it_again(fields: dict[str, Any], options: dict[str, Any]) -> None:
    """Of the settings that a text can say; those it cannot are named in docs/infotext.md."""
    asked = {
        "prompt": "a (red:1.1) circle",
        "negative_prompt": "blue",
        **fields,
        "override_settings": options,
    }
    part = resolve_txt2img(asked, CATALOGUE).parts[0]
    found = paste(infotext.render(part, 0), catalogue=CATALOGUE)[1]
    again = resolve_txt2img({**found.fields, "override_settings": found.overrides}, CATALOGUE).parts[0]
    assert _of_the_picture(again) == _of_the_picture(part)


def _of_the_picture(part: ResolvedPart) -> dict[str, Any]:
    """What the picture depends on, with the options its samplers and schedules do not read left out."""
    found = part.model_dump(exclude={"extra_params", "infotext_omits", "whole_numbers", "format"})
    if "Exponential" in (part.scheduler, part.hires.scheduler if part.hires else ""):
        found["settings"].pop("rho")
    names = {part.sampler, part.hires.sampler if part.hires else part.sampler}
    if not any("eta" in find_sampler(name)[0].uses for name in names):
        found["settings"].pop("eta")
    if all(find_sampler(name)[0].discards for name in names):
        found["settings"].pop("always_discard_next_to_last_sigma")
    return found


def test_a_text_cannot_name_styles_by_the_key_the_reader_keeps_for_them() -> None:
    text = "a\nSteps: 1, Seed: 1, Sampler: Euler, Styles array: x"
    assert filled(Txt2ImgPayload(), text).styles is None


def test_a_style_of_many_places_is_taken_off_or_left_without_being_made() -> None:
    known = CATALOGUE.model_copy(update={"styles": {"bb": ("{prompt}" * 2500, "")}})
    found = paste("a" * 200_000 + "\nSteps: 1, Sampler: Euler, CFG scale: 7", catalogue=known)[1]
    assert "styles" not in found.fields or found.fields["styles"] == []
