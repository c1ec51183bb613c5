"""Reading infotexts: the grammar against its plain definition, texts of older versions, and texts that mean
harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier import infotext
from atelier.infotext import grammar, novelai, versions

# The grammar as one backtracking expression, slow on hostile lines: what the one-pass reader agrees with.
ENTRY = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|\Z)')
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
lines = st.text(alphabet='ab_é1 -/:,"\\.\t\r', max_size=40)


@given(lines)
def test_the_entries_of_a_line_are_those_of_the_grammar(line: str) -> None:
    assert grammar.entries(line) == ENTRY.findall(line)


HOSTILE: dict[str, Callable[[int], str]] = {
    "one long key without a colon": lambda size: "a" * size,
    "words without a colon": lambda size: "a " * (size // 2),
    "blanks": lambda size: "x" + " " * size + "y",
    "one-letter keys": lambda size: "a: b " * (size // 5),
    "open quotes": lambda size: 'aa:"' * (size // 4),
    "quotes that no comma follows": lambda size: 'aa:"x"y,' * (size // 8),
    "escaped quotes": lambda size: 'aa:"\\",' * (size // 7),
    "one open quote and many entries": lambda size: 'aa:"' + "bb: 1, " * (size // 7),
    "colons": lambda size: ":" * size,
    "brackets": lambda size: "(" * size,
    "closed brackets": lambda size: "(" * (size // 2) + ")" * (size // 2),
    "tags": lambda size: "<lora:" * (size // 6),
    "lines": lambda size: "Negative prompt:\n" * (size // 17),
    "digits": lambda size: f"{LINE}, Foo: {'9' * size}x{'9' * size}, First pass size: {'9' * size}x0",
    "a version": lambda size: f"{LINE}, Version: 1.{'9' * size}",
    "nested JSON": lambda size: f'{LINE}, Foo: "{"[" * size}"',
}


class CountingPattern:
    """A compiled expression that counts how often it is asked."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.calls = pattern, 0

    def search(self, text: str, place: int) -> re.Match[str] | None:
        self.calls += 1
        return self.pattern.search(text, place)

    def match(self, text: str, place: int) -> re.Match[str] | None:
        self.calls += 1
        return self.pattern.match(text, place)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CountingPattern]]:
    patterns = [CountingPattern(getattr(grammar, name)) for name in ("_RUN", "_QUOTED", "_PLAIN")]
    for name, pattern in zip(("_RUN", "_QUOTED", "_PLAIN"), patterns, strict=True):
        monkeypatch.setattr(grammar, name, pattern)
    yield patterns


@pytest.mark.parametrize("shape", list(HOSTILE))
def test_hostile_lines_take_matches_in_proportion_to_their_length(
    shape: str, counted: list[CountingPattern]
) -> None:
    taken = []
    for size in (10_000, 20_000):
        before = sum(each.calls for each in counted)
        grammar.entries(HOSTILE[shape](size).replace("\n", " "))
        taken.append(sum(each.calls for each in counted) - before)
    assert taken[1] <= 2.1 * taken[0] + 10
    assert taken[1] <= 20_000


@pytest.mark.parametrize("shape", list(HOSTILE))
def test_hostile_texts_of_a_million_characters_are_read(shape: str) -> None:
    # Anything that looks at characters again and again would not come back from this in an hour.
    found = infotext.parse(HOSTILE[shape](1_000_000))
    assert "Prompt" in found
    assert json.dumps(found, ensure_ascii=False).encode("utf-8")


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(anything, anything)
def test_whatever_stands_around_it_a_text_parses_to_what_utf_8_can_hold(before: str, after: str) -> None:
    found = infotext.parse(f"{before}\n{LINE}, Foo: {after}", styles={"s": ("{prompt}, x", "y")})
    assert json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8")) == found


def test_half_a_surrogate_pair_in_a_quoted_value_becomes_the_replacement_character() -> None:
    assert infotext.parse(LINE + ', Hires prompt: "a, \\ud800"')["Hires prompt"] == "a, \ufffd"


def test_an_empty_value_counts_as_none() -> None:
    assert "Model" not in infotext.parse(LINE + ", Model: , VAE: x")


def test_two_entries_are_a_line_of_the_prompt() -> None:
    assert infotext.parse("Steps: 20, Sampler: Euler")["Prompt"] == "Steps: 20, Sampler: Euler"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.10.1", (1, 10, 1, 0)),
        ("1.6.0", (1, 6, 0, 0)),
        ("1.6", (1, 6, 0, 0)),
        ("v1.7.0-225-gabcdef01", (1, 7, 0, 225)),
        ("1.6.0-RC", (1, 6, 0, -1)),
        ("v1.8.0-RC-30-gab12", (1, 8, 0, -1)),
        ("ComfyUI", None),
        ("f0.0.17v1.8.0rc-latest-276-g29be1da7", None),
        ("", None),
    ],
)
def test_versions_are_read_as_the_peer_writes_them(text: str, expected: versions.Version | None) -> None:
    assert versions.version(text) == expected


def parsed(more: str, prompt: str = "a [b:c:0.5]") -> dict[str, Any]:
    return infotext.parse(f"{prompt}\n{LINE}, {more}")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("Version: v1.5.2", {"Old prompt editing timelines", "Downcast alphas_cumprod"}),
        ("Version: v1.6.0-RC", {"Old prompt editing timelines", "Downcast alphas_cumprod"}),
        ("Version: v1.6.0", {"Downcast alphas_cumprod"}),
        ("Version: v1.7.0-224-gabc", {"Downcast alphas_cumprod"}),
        ("Version: v1.7.0-225-gabc", set()),
        ("Version: v1.10.1", set()),
        ("Model: x", set()),
    ],
)
def test_a_text_of_an_older_version_brings_back_how_it_worked(more: str, expected: set[str]) -> None:
    watched = {"Old prompt editing timelines", "Downcast alphas_cumprod", "Pad conds v0"}
    assert {key for key in watched if parsed(more).get(key)} == expected


def test_old_texts_of_some_samplers_pad_and_old_refiners_switch_by_steps() -> None:
    plms = infotext.parse(LINE.replace("Euler a", "PLMS") + ", Version: v1.5.0")
    assert plms["Pad conds v0"] is True
    assert parsed("Refiner: x, Version: v1.7.0")["Refiner switch by sampling steps"] is True
    assert parsed("Refiner: x, Version: v1.8.0")["Refiner switch by sampling steps"] is False


def test_a_hypernetwork_beside_the_prompt_becomes_a_tag_in_it() -> None:
    assert parsed("Hypernet: anime, Hypernet strength: 0.6", "cat")["Prompt"] == "cat<hypernet:anime:0.6>"
    assert parsed("Hypernet: anime", "cat")["Prompt"] == "cat<hypernet:anime:1.0>"


def test_a_first_pass_that_is_no_number_is_left_alone() -> None:
    assert parsed("First pass size: 0x" + "9" * 5000)["Size-1"] == "64"
    assert parsed("First pass size: 512x640")["Hires resize-2"] == 64


@pytest.mark.parametrize(
    ("prompt", "used"),
    [("a (b)", True), ("a (b:1.0)", False), (r"a \(b\)", False), ("a [b]", True), ("a", False)],
)
def test_emphasis_is_named_where_a_word_has_a_weight(prompt: str, used: bool) -> None:
    assert ("Emphasis" in parsed("Model: x", prompt)) is used


def test_tags_are_renamed_to_what_a_file_is_called_here() -> None:
    text = f'cat <lora:old:0.7> <lora:other:1>\n{LINE}, Lora hashes: "old: 0123456789ab, other: ffff"'
    found = infotext.parse(text, loras={"0123456789ab": ("new name",)})
    assert found["Prompt"] == "cat <lora:new name:0.7> <lora:other:1>"
    kept = infotext.parse(text, loras={"0123456789ab": ("new name", "old")})
    assert kept["Prompt"] == "cat <lora:old:0.7> <lora:other:1>"


def test_every_way_to_name_a_network_follows_its_hash_and_names_may_change_places() -> None:
    text = (
        "<lora:a> <lyco:b:1:0.5> <hypernet:h:0.3> <hypernet:a:1>\nNegative prompt: <lora:a:1>\n"
        f'{LINE}, Hires prompt: "<lora:a, one:1>", Lora hashes: "a: aa, b: BB, a one: cc", '
        'Hypernet hashes: "h: dd"'
    )
    found = infotext.parse(
        text,
        loras={"aa": ("b",), "bb": ("a",), "cc": ("x",)},
        hypernetworks={"dd": ("calm",), "aa": ("no",)},
    )
    assert found["Prompt"] == "<lora:b> <lyco:a:1:0.5> <hypernet:calm:0.3> <hypernet:a:1>"
    assert found["Hires prompt"] == "<lora:x:1>"
    assert found["Negative prompt"] == "<lora:a:1>", "a tag there is text"
    old = infotext.parse(f"x\n{LINE}, Hypernet: h, Hypernet hash: dd", hypernetworks={"dd": ("calm",)})
    assert old["Prompt"] == "x<hypernet:calm:1.0>"


def test_words_of_embeddings_follow_their_hashes_in_all_prompts() -> None:
    text = (
        "art by Style-1, style-12, <lora:style-1:1>, a style-1's\nNegative prompt: (style-1:1.2) bad\n"
        f'{LINE}, TI hashes: "style-1: 0123456789ab, bad: ffff"'
    )
    found = infotext.parse(text, embeddings={"0123456789ab": ("my style",)})
    assert found["Prompt"] == "art by my style, style-12, <lora:style-1:1>, a my style's"
    assert found["Negative prompt"] == "(my style:1.2) bad"


STYLES = {"wrap": ("photo of {prompt}, bright", "dark"), "plain": ("sharp edges", "blurry, {prompt}")}


def test_styles_are_taken_out_and_named() -> None:
    text = f"photo of a red circle, bright, sharp edges\nNegative prompt: blurry, green, dark\n{LINE}"
    found = infotext.parse(text, styles=STYLES)
    assert (found["Prompt"], found["Negative prompt"]) == ("a red circle", "green")
    assert found["Styles array"] == ["wrap", "plain"]


def test_styles_stay_in_where_the_second_pass_had_others() -> None:
    text = f'photo of a cat, bright\nNegative prompt: dark\n{LINE}, Hires prompt: "a cat, plain"'
    found = infotext.parse(text, styles=STYLES)
    assert found["Prompt"] == "photo of a cat, bright"
    assert "Styles array" not in found


def test_a_second_pass_with_the_same_styles_is_freed_of_them_too() -> None:
    text = f'photo of a cat, bright\nNegative prompt: dark\n{LINE}, Hires prompt: "photo of a dog, bright"'
    found = infotext.parse(text, styles=STYLES)
    assert (found["Prompt"], found["Hires prompt"], found["Hires negative prompt"]) == ("a cat", "a dog", "")


def test_the_recorded_answers_of_png_info_are_parsed_to_the_letter(golden: Path) -> None:
    compared = 0
    for file in sorted((golden / "cases").glob("pnginfo-*.json")):
        told = json.loads(file.read_text())["info"]
        assert infotext.parse(told["info"], styles=STYLES) == told["parameters"], file.stem
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{x}", "(x:1.05)"),
        ("[x]", "(x:0.952)"),
        ("a, {{b, c}}, d", "a, (b, c:1.103), d"),
        ("{a [b] c}", "(a:1.05) b (c:1.05)"),
        ("{open", "(open:1.05)"),
        ("miku (vocaloid)", r"miku \(vocaloid\)"),
        ("plain", "plain"),
        ("{, }x", ", x"),
    ],
)
def test_weights_of_novelai_become_the_peers(text: str, expected: str) -> None:
    assert novelai.weights(text) == expected


def test_what_novelai_says_becomes_an_infotext() -> None:
    comment = {"steps": 28, "sampler": "k_dpmpp_2m", "seed": 7, "scale": 11.0, "uc": "[lowres]"}
    text = novelai.translate("{girl}", json.dumps(comment), (64, 96))
    assert text == (
        "(girl:1.05)\nNegative prompt: (lowres:0.952)\n"
        "Steps: 28, Sampler: DPM++ 2M, CFG scale: 11.0, Seed: 7, Size: 64x96, Clip skip: 2, ENSD: 31337"
    )


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_of_novelai_fails(description: str, comment: str) -> None:
    assert novelai.translate(description, comment, (1, 1)) is None or json.loads(comment) is not None
    assert novelai.translate(description, json.dumps({"uc": comment, "steps": comment}), (1, 1))


def test_deep_brackets_and_deep_json_are_bounded() -> None:
    assert len(novelai.weights("{" * 100_000 + "x" + "]" * 100_000)) < 100
    assert novelai.translate("x", "[" * 100_000, (1, 1)) is None
