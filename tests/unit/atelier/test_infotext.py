"""Infotext, against the peer's own texts and by law."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atelier import __version__, answer, infotext
from atelier.contract.errors import AtelierError
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import EngineSettings, HiresPass, ResolvedPart
from atelier.resolve import resolve_txt2img

COMPARED = ("all_prompts", "all_negative_prompts", "all_seeds", "index_of_first_image", "clip_skip")
DIFFERENT_ON_PURPOSE = {"sampler-alias"}
"""The peer falls back to DPM++ 2M for an alias; ours knows it."""


def model(kind: ModelKind, filename: str, short: str) -> ModelRef:
    digest = short + "0" * (64 - len(short))
    return ModelRef(
        kind=kind,
        name=filename.rsplit(".", 1)[0],
        filename=filename,
        sha256=digest,
        blob_sha256=digest,
        size=1,
        short_hash=short,
    )


CATALOGUE = Catalogue(
    models=(
        model(ModelKind.CHECKPOINT, "oracle.safetensors", "cae32bd05b"),
        model(ModelKind.CHECKPOINT, "oracle_b.safetensors", "011a51a745"),
        model(ModelKind.VAE, "alt_vae.safetensors", "d865156f81"),
    ),
    default_checkpoint="oracle",
    styles={"wrap": ("photo of {prompt}, bright", "dark"), "plain": ("sharp edges", "blurry, {prompt}")},
)


def plain(text: str) -> str:
    return re.sub(r", (Version|Engine): [^,\n]+", "", text)


def test_recorded_requests_render_to_the_letter(golden: Path) -> None:
    compared = 0
    for file in sorted((golden / "cases").glob("*.json")):
        case = json.loads(file.read_text())
        if not case["route"].endswith("txt2img") or case["name"] in DIFFERENT_ON_PURPOSE:
            continue
        if "TI hashes" in case["info"]["extra_generation_params"] or "script_name" in case["payload"]:
            continue
        try:
            resolution = resolve_txt2img(case["payload"], CATALOGUE, answering=True)
        except AtelierError:
            continue
        if resolution.ignored or resolution.warnings or resolution.arrangement.grids:
            continue
        texts = [infotext.render(part, i) for part in resolution.parts for i in range(part.batch_size)]
        assert [plain(each) for each in texts] == [plain(each) for each in case["info"]["infotexts"]], case[
            "name"
        ]
        info = answer.info(resolution, texts)
        assert {key: info[key] for key in COMPARED} == {key: case["info"][key] for key in COMPARED}, case[
            "name"
        ]
        assert info["extra_generation_params"] == case["info"]["extra_generation_params"], case["name"]
        compared += 1
    assert compared >= 55


def test_the_text_ends_with_the_baseline_and_then_the_engine() -> None:
    resolution = resolve_txt2img({"prompt": "x", "seed": 1}, CATALOGUE)
    assert infotext.render(resolution.parts[0], 0).endswith(
        f", Version: v1.10.1, Engine: Atelier {__version__}"
    )


def test_the_recorded_texts_are_parsed_to_the_letter(golden: Path) -> None:
    for case in json.loads((golden.parent / "infotext_cases.json").read_text()):
        assert infotext.parse(case["infotext"]) == case["parsed"]


@given(st.text(max_size=60))
def test_a_quoted_value_comes_back_from_unquote(value: str) -> None:
    quoted = infotext.quote(value)
    assert infotext.unquote(quoted) == value or not re.search(r"[,\n:]", value)


@given(st.text(max_size=300))
def test_any_text_parses_without_an_exception(text: str) -> None:
    assert "Prompt" in infotext.parse(text)


def part(**values: Any) -> ResolvedPart:
    """A part with ordinary values, whatever the resolver makes of requests."""
    ordinary: dict[str, Any] = {
        "checkpoint": CATALOGUE.models[0],
        "prompt": "x",
        "negative_prompt": "",
        "sampler": "Euler a",
        "scheduler": "Automatic",
        "steps": 10,
        "cfg_scale": 5.0,
        "width": 64,
        "height": 64,
        "seeds": (1234,),
        "subseeds": (0,),
    }
    return ResolvedPart.model_validate(ordinary | values)


def keys_of(shown: ResolvedPart) -> list[str]:
    return [key for key, value in infotext.parameters(shown, 0).items() if value is not None]


def line_of(shown: ResolvedPart) -> str:
    return plain(infotext.render(shown, 0).splitlines()[-1])


HIRES = HiresPass(
    size=(128, 128),
    upscaled=(128, 128),
    upscaler="Latent",
    steps=10,
    denoising_strength=0.7,
    sampler="Euler a",
    scheduler="Automatic",
    prompt="x",
    negative_prompt="",
)
NULLS = {"Hires prompt": None, "Hires negative prompt": None, "Hires schedule type": None}


def test_every_entry_stands_in_the_peers_order() -> None:
    inpainting = CATALOGUE.models[0].model_copy(update={"family": "sd1-inpaint"})
    everything = part(
        checkpoint=inpainting,
        vae=CATALOGUE.models[2],
        subseed_strength=0.5,
        seed_resize_from=(64, 96),
        hires=HIRES,
        tiling=True,
        settings=EngineSettings(clip_skip=2, eta_noise_seed_delta=31337, randn_source="CPU"),
        extra_params={"Denoising strength": 0.7, "Hires upscale": 2.0, "Schedule type": "Automatic"},
    )
    assert ", ".join(keys_of(everything)) == (
        "Steps, Sampler, Schedule type, CFG scale, Seed, Size, Model hash, Model, VAE hash, VAE, "
        "Variation seed, Variation seed strength, Seed resize from, Denoising strength, "
        "Conditional mask weight, Clip skip, ENSD, RNG, Tiling, Hires upscale, Version, Engine"
    )
    assert "Conditional mask weight: 1.0," in infotext.render(everything, 0)
    assert "Tiling: True" in infotext.render(everything, 0)


def test_what_the_second_pass_shares_with_the_first_is_not_told() -> None:
    extra = {"Denoising strength": 0.7, **NULLS, "Hires upscale": 2.0}
    assert "Hires upscale: 2.0" in line_of(part(hires=HIRES, extra_params=extra))
    assert "Hires prompt" not in line_of(part(hires=HIRES, extra_params=extra))


def test_what_the_second_pass_has_of_its_own_is_told_where_the_answer_has_null() -> None:
    own = HIRES.model_copy(
        update={"prompt": "a, b", "negative_prompt": "blue", "scheduler": "Karras", "sampler": "DPM++ 2M"}
    )
    extra = {"Hires sampler": "DPM++ 2M", **NULLS, "Hires upscale": 2.0}
    assert line_of(part(hires=own, extra_params=extra)).endswith(
        "Hires sampler: DPM++ 2M, "
        'Hires prompt: "a, b", Hires negative prompt: blue, Hires schedule type: Karras, Hires upscale: 2.0'
    )


def test_an_entry_that_is_to_be_left_out_is_and_the_engine_stays() -> None:
    text = infotext.render(part(infotext_omits=("Model hash", "Version")), 0)
    assert text.endswith(f"Size: 64x64, Model: oracle, Engine: Atelier {__version__}")


# The laws. Lines of a prompt come back without space at their ends, and without empty lines in front: no text
# with "Negative prompt:" at a line's start can be told from what the renderer writes itself.


def normal(prompt: str) -> str:
    """A prompt as it comes back."""
    lines = [line.strip() for line in prompt.split("\n")]
    while lines and not lines[0]:
        lines.pop(0)
    return "\n".join(lines)


prompts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80).filter(
    lambda text: not any(line.strip().startswith("Negative prompt:") for line in text.split("\n"))
)


@given(prompts, prompts)
def test_prompts_come_back(prompt: str, negative: str) -> None:
    found = infotext.parse(infotext.render(part(prompt=prompt, negative_prompt=negative), 0))
    assert found["Prompt"] == normal(prompt)
    assert found["Negative prompt"] == normal(negative)


@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, 150),
    st.floats(0, 100),
    st.integers(64, 2048),
    st.integers(64, 2048),
    st.floats(0.01, 1),
    st.integers(2, 12),
    st.sampled_from(["CPU", "NV"]),
)
def test_numbers_and_options_come_back(
    seed: int, steps: int, scale: float, width: int, height: int, strength: float, skip: int, source: Any
) -> None:
    shown = part(
        seeds=(seed,),
        subseeds=(seed,),
        subseed_strength=strength,
        steps=steps,
        cfg_scale=scale,
        width=width,
        height=height,
        settings=EngineSettings(clip_skip=skip, randn_source=source),
    )
    found = infotext.parse(infotext.render(shown, 0))
    assert (found["Seed"], found["Variation seed"], found["Steps"]) == (str(seed), str(seed), str(steps))
    assert math.isclose(float(str(found["CFG scale"])), scale)
    assert math.isclose(float(str(found["Variation seed strength"])), strength)
    assert (found["Size-1"], found["Size-2"]) == (str(width), str(height))
    assert (found["Clip skip"], found["RNG"]) == (str(skip), source)


def comes_back(value: str) -> bool:
    """Whether a value survives the peer's quoting: quoted it does; raw, if no space or quotes enclose it."""
    if re.search(r"[,\n:]", value):
        return True
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return bool(value) and value == value.lstrip() and not quoted and not re.fullmatch(r"\d+x\d+", value)


keys = st.from_regex(r"[A-Z][a-z]{2,8}( [a-z]{1,5})?", fullmatch=True).filter(
    lambda key: key not in ("Version", "Engine", "Hypernet", "Prompt")
)
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(comes_back)


@given(st.dictionaries(keys, values, max_size=4))
def test_further_entries_come_back_whatever_they_hold(extra: dict[str, str]) -> None:
    shown = {key: value for key, value in extra.items() if key != value}
    found = infotext.parse(infotext.render(part(extra_params=shown), 0))
    assert {key: found[key] for key in shown} == shown
