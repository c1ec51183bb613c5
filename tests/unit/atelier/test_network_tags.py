"""Tags of networks as the resolver reads them through the extensions: names, strengths, passes, warnings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from atelier import extension, infotext
from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import ResolvedPart
from atelier.resolve import Resolution, resolve_txt2img
from tests.unit.atelier.test_infotext import CATALOGUE, model


def lora(name: str, short: str, alias: str | None = None) -> ModelRef:
    made = model(ModelKind.LORA, f"{name}.safetensors", short)
    return made.model_copy(update={"alias": alias, "addnet_hash": short * 2})


STUDIO = Catalogue(
    models=(
        *CATALOGUE.models,
        lora("one", "1111111111", "first_by_its_trainer"),
        lora("two", "2222222222", "shared"),
        lora("three", "3333333333", "shared"),
        lora("four", "4444444444", "none"),
        lora("a:b", "6666666666"),
        model(ModelKind.HYPERNETWORK, "hyper.pt", "5555555555"),
    ),
    default_checkpoint="oracle",
)


def read(prompt: str, **more: Any) -> Resolution:
    return resolve_txt2img({"prompt": prompt, "seed": 1, **more}, STUDIO)


def part(prompt: str, **more: Any) -> ResolvedPart:
    resolution = read(prompt, **more)
    assert not resolution.warnings
    return resolution.parts[0]


@pytest.mark.parametrize(
    ("tag", "strengths"),
    [
        ("<lora:one>", (1.0, 1.0, None)),
        ("<lora:one:0.5>", (0.5, 0.5, None)),
        ("<lora:one:0.5:0.25>", (0.5, 0.25, None)),
        ("<lora:one:0.5:0.25:4>", (0.5, 0.25, 4)),
        ("<lora:one:unet=0.2:te=-0.3:dyn=2>", (-0.3, 0.2, 2)),
        ("<lyco:one:0.5:unet=0.7>", (0.5, 0.7, None)),
    ],
)
def test_a_tag_says_how_strongly_its_network_acts_on_what(
    tag: str, strengths: tuple[float, float, int | None]
) -> None:
    [use] = part(f"a cat {tag}").networks
    assert (use.model.name, use.te, use.unet, use.dyn) == ("one", *strengths)


def test_a_hypernetworks_tag_has_one_strength() -> None:
    [use] = part("a cat <hypernet:hyper:0.3>").networks
    assert (use.model.name, use.model.kind, use.unet) == ("hyper", ModelKind.HYPERNETWORK, 0.3)


@pytest.mark.parametrize(
    ("name", "found"),
    [("first_by_its_trainer", "one"), ("shared", None), ("none", None), ("One", None), ("four", "four")],
)
def test_a_name_is_a_files_or_its_trainers_where_one_file_alone_has_it(name: str, found: str | None) -> None:
    resolution = read(f"a cat <lora:{name}:1>")
    assert [use.model.name for use in resolution.parts[0].networks] == ([found] if found else [])
    assert bool(resolution.warnings) == (found is None)


def test_a_name_that_is_nobodys_is_told_with_the_nearest_and_the_job_goes_on() -> None:
    resolution = read("a cat <lora:fou:1> <hypernet:nope:1>")
    assert len(resolution.parts) == 1
    assert resolution.warnings[0].startswith("Lora not found: fou.")
    assert "four" in resolution.warnings[0]
    assert resolution.warnings[1].startswith("Hypernetwork not found: nope.")


def test_the_infotext_keeps_the_tags_and_names_the_hashes_by_what_the_prompt_calls_them() -> None:
    text = infotext.render(part("a cat <lora:one:1> <lora:two:0.5> <hypernet:hyper:1>"), 0)
    assert text.startswith("a cat <lora:one:1> <lora:two:0.5> <hypernet:hyper:1>\n")
    assert 'Lora hashes: "one: 111111111111, two: 222222222222"' in text
    aliased = infotext.render(part("a cat <lora:first_by_its_trainer:1>"), 0)
    assert 'Lora hashes: "first_by_its_trainer: 111111111111"' in aliased
    silent = {"override_settings": {"lora_add_hashes_to_infotext": False}}
    assert "Lora hashes" not in infotext.render(part("a cat <lora:one:1>", **silent), 0)


def test_the_second_pass_has_the_networks_of_its_own_prompt_or_the_firsts() -> None:
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.5}
    for more, second in (
        ({}, ["one"]),
        ({"hr_prompt": "a dog <lora:two>"}, ["two"]),
        ({"hr_prompt": "x"}, []),
    ):
        found = part("a cat <lora:one>", **hires, **more)
        assert [use.model.name for use in found.networks] == ["one"]
        assert found.hires is not None
        assert [use.model.name for use in found.hires.networks] == second


def test_options_add_a_network_to_every_prompt_that_does_not_name_it() -> None:
    added = {"override_settings": {"sd_lora": "one", "extra_networks_default_multiplier": 0.4}}
    assert [(use.model.name, use.unet) for use in part("a cat", **added).networks] == [("one", 0.4)]
    assert [use.unet for use in part("a cat <lora:one:0.9>", **added).networks] == [0.9]


def test_a_tag_in_the_negative_prompt_and_disabled_networks_name_none() -> None:
    assert part("a cat", negative_prompt="<lora:one:1>").networks == ()
    assert part("a cat <lora:one:1>", disable_extra_networks=True).networks == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [("enabled = false", "switched off"), ('contract = "7.0"', "contract 7.0")],
)
def test_each_tag_of_a_disabled_or_mismatching_extension_is_told(
    tmp_path: Path, line: str, reason: str
) -> None:
    root = tmp_path / "extensions"
    shutil.copytree(extension.INSTALLED, root)
    manifest = root / "lora" / "extension.toml"
    kept = [each for each in manifest.read_text().splitlines() if each.split()[0] != line.split()[0]]
    manifest.write_text("\n".join([*kept, line]))
    reports = {each.name: each for each in extension.check(root)}
    assert reason in reports["lora"].reason
    assert reports["hypernetwork"].usable
    asked = {"prompt": "a cat <lora:one:1> <lora:two:1> <hypernet:hyper:1>", "seed": 1}
    resolution = resolve_txt2img(asked, STUDIO, hooks=extension.load("schema", root))
    assert [use.model.name for use in resolution.parts[0].networks] == ["hyper"]
    assert len(resolution.warnings) == 2
    assert all("<lora:" in each and "no extension in use" in each for each in resolution.warnings)


def test_networks_named_beside_the_prompt_are_its_tags() -> None:
    members = {
        "LoRA": {"args": [{"name": "one", "te": 0.5}, {"name": "two", "te": 0.2, "unet": -0.7, "dyn": 4}]},
        "hypernet": {"args": [{"name": "hyper", "strength": 0.4}]},
    }
    resolution = read("a cat", alwayson_scripts=members, enable_hr=True, hr_prompt="a dog", steps=2)
    [found] = resolution.parts
    tags = "<lora:one:0.5:0.5> <lora:two:0.2:-0.7:4> <hypernet:hyper:0.4>"
    assert found.prompt == f"a cat {tags}"
    assert resolution.payload.prompt == "a cat"
    assert not resolution.warnings and not resolution.ignored
    assert found.networks == part(f"a cat {tags}").networks
    assert found.hires is not None and found.hires.networks == found.networks
    assert infotext.parse(infotext.render(found, 0))["Prompt"] == f"a cat {tags}"


@pytest.mark.parametrize(
    ("title", "member", "said"),
    [
        ("lora", {"args": [{"name": "nobody"}]}, "no LoRA named 'nobody'"),
        ("hypernet", {"args": [{"name": "hypers"}]}, "Did you mean 'hyper'"),
        ("lora", {"args": [{"name": "one", "te": "much"}]}, "'alwayson_scripts.lora.args.0.te'"),
        ("lora", {"args": [{"name": "one", "dyn": 0}]}, "'alwayson_scripts.lora.args.0.dyn'"),
        ("lora", {"args": [{"name": "one", "te": float("nan")}]}, "'alwayson_scripts.lora.args.0.te'"),
        ("lora", {"args": [{"weight": 1}]}, "'alwayson_scripts.lora.args.0.name'"),
        ("lora", {"args": [{"name": "one"}] * 33}, "'alwayson_scripts.lora.args'"),
        ("lora", {"args": [], "enabled": True}, "'alwayson_scripts.lora.enabled'"),
        ("lora", {"args": [{"name": "a:b"}]}, "'a:b' cannot be named in a tag"),
        ("lora", [1], "'alwayson_scripts.lora'"),
        ("hypernet", None, "'alwayson_scripts.hypernet'"),
        ("loras", {"args": []}, "Did you mean 'lora'"),
    ],
)
def test_a_member_that_its_extension_cannot_use_is_refused_by_its_field(
    title: str, member: Any, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read("a cat", alwayson_scripts={title: member})
    assert said in refused.value.message


def test_disabled_networks_leave_a_member_out_and_say_so() -> None:
    member = {"lora": {"args": [{"name": "one"}]}}
    resolution = read("a cat", alwayson_scripts=member, disable_extra_networks=True)
    assert resolution.parts[0].networks == () and resolution.parts[0].prompt == "a cat"
    assert ("alwayson_scripts.lora", "disable_extra_networks leaves the networks out") in resolution.ignored


def test_a_failing_schema_takes_no_other_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "extensions"
    shutil.copytree(extension.INSTALLED, root)
    broken = root / "lora" / "schema.py"
    broken.write_text(broken.read_text().replace("return {KIND: Loras}", "return 1 / 0"))
    hooks = extension.load("schema", root)
    member = {"args": [{"name": "hyper"}]}
    asked = {"prompt": "a cat", "seed": 1, "alwayson_scripts": {"hypernet": member}}
    assert [use.model.name for use in resolve_txt2img(asked, STUDIO, hooks=hooks).parts[0].networks] == [
        "hyper"
    ]
    assert "lora understands no members: division by zero" in caplog.text
    with pytest.raises(UnknownName, match=r"Known: .*'hypernet'"):
        resolve_txt2img(asked | {"alwayson_scripts": {"lora": member}}, STUDIO, hooks=hooks)
