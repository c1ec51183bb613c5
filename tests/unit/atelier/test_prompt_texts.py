"""Comments, styles, network tags and what is told about mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.prompt import comments, networks, styles, syntax
from atelier.prompt.networks import NetworkTag

STYLES = {"wrap": ("photo of {prompt}, bright", "dark"), "plain": ("sharp edges", "blurry, {prompt}")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a # b", "a \n"),
        ("a", "a"),
        ("", ""),
        ("# b", "\n"),
        ("a # b\nc", "a \nc"),
        ("a\n# b\nc", "a\nc"),
        ("# b\nc", "\nc"),
        ("a\n# b", "a\n"),
        ("a\n# b\n# c\nd", "a\n\nd"),
        ("a#b#c\n", "a\n"),
    ],
)
def test_comments_end_with_their_line(text: str, expected: str) -> None:
    assert comments.strip(text) == expected


@given(st.text(alphabet="ab#\n \\", max_size=40))
def test_no_comment_is_left_and_all_other_words_are(text: str) -> None:
    stripped = comments.strip(text)
    assert "#" not in stripped
    kept = [line.partition("#")[0] for line in text.split("\n")]
    assert [line for line in stripped.split("\n") if line] == [line for line in kept if line]


def test_several_styles_are_applied_in_order_and_taken_off_again() -> None:
    positive = styles.apply_all("a cat", [STYLES["wrap"][0], STYLES["plain"][0]])
    negative = styles.apply_all("ugly", [STYLES["wrap"][1], STYLES["plain"][1]])
    assert (positive, negative) == ("photo of a cat, bright, sharp edges", "blurry, ugly, dark")
    assert styles.extract(positive, negative, STYLES) == (("wrap", "plain"), "a cat", "ugly")


def test_a_style_is_taken_off_only_where_both_texts_show_it() -> None:
    assert styles.extract("a cat, sharp edges", "ugly", STYLES) == ((), "a cat, sharp edges", "ugly")
    assert styles.extract("unsharp edges", "blurry, ugly", STYLES) == ((), "unsharp edges", "blurry, ugly")
    assert styles.extract("a", "b", {"nothing": ("", "")}) == ((), "a", "b")


SOME_TEXT = st.text(alphabet="ab, ", max_size=6)
SOME_STYLE = SOME_TEXT | st.tuples(SOME_TEXT, SOME_TEXT).map("{prompt}".join)


@given(
    SOME_TEXT,
    SOME_TEXT,
    st.dictionaries(st.sampled_from("pqrs"), st.tuples(SOME_STYLE, SOME_STYLE), max_size=4),
)
def test_styles_that_were_taken_off_make_the_same_texts_when_applied_again(
    prompt: str, negative: str, known: dict[str, tuple[str, str]]
) -> None:
    made = (
        styles.apply_all(prompt, [positive for positive, _ in known.values()]),
        styles.apply_all(negative, [negative for _, negative in known.values()]),
    )
    names, *left = styles.extract(*made, known)
    again = [styles.apply_all(left[side], [known[name][side] for name in names]) for side in (0, 1)]
    assert [each.strip() for each in again] == [each.strip() for each in made]
    assert len(set(names)) == len(names)


@given(
    st.lists(
        st.sampled_from(["a, ", "<lora:x:1>", "<", ">", "(b:1.2)", "<x>", "<:>", "lora:y:1>"]), max_size=8
    )
)
def test_tags_are_removed_once_and_for_all_where_they_are_not_inside_each_other(parts: list[str]) -> None:
    text = "".join(parts)
    left, found = networks.extract(text)
    if "<<" not in text:
        assert text.count("<lora:x:1>") <= len(found)
        assert networks.extract(left) == (left, []) or "<lora" in left.replace("<lora:x:1>", "")


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("lora", ["x"], NetworkTag("lora", "x")),
        ("lora", ["x", "0.5"], NetworkTag("lora", "x", 0.5, 0.5)),
        ("lyco", ["x", ".5", "-1"], NetworkTag("lora", "x", 0.5, -1.0)),
        ("lora", ["x", "1", "1", "2"], NetworkTag("lora", "x", 1.0, 1.0, 2)),
        ("lora", ["x", "te=0", "unet=1"], NetworkTag("lora", "x", 0.0, 1.0)),
        ("lora", ["x", "dyn=4", "0.3"], NetworkTag("lora", "x", 0.3, 0.3, 4)),
        ("hypernet", ["h", "0.7"], NetworkTag("hypernet", "h", 0.7, 0.7)),
        ("lora", ["", "1"], NetworkTag("lora", "")),
    ],
)
def test_the_arguments_of_a_tag_are_read_by_place_and_by_name(
    kind: str, arguments: list[str], expected: NetworkTag
) -> None:
    assert networks.tag(kind, arguments) == expected


@pytest.mark.parametrize(
    "bad", ["strong", "", "nan", "1e999", "te=x", "unet=", "dyn=0", "dyn=1.5", "power=2"]
)
def test_an_argument_that_cannot_be_read_is_left_out_and_told(bad: str) -> None:
    read = networks.tag("lora", ["x", bad])
    assert (read.te, read.unet, read.dyn) == (1.0, 1.0, None)
    assert read.warning.startswith("<lora:x>: ")
    assert bad.partition("=")[0] in read.warning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a) [b] \\( {c}", []),
        ("(a", ["1 ( is not closed."]),
        ("((a", ["2 ( are not closed."]),
        ("a) b]]", ["1 ) closes nothing.", "2 ] close nothing."]),
        (")(", ["1 ( is not closed.", "1 ) closes nothing."]),
        ("a | b", []),
        ("", []),
    ],
)
def test_brackets_without_partners_are_told_by_kind(text: str, expected: list[str]) -> None:
    assert syntax.problems(text) == expected


def test_a_bar_that_stops_prompt_editing_is_told() -> None:
    (told,) = syntax.problems("x | y [a:b:5]")
    assert "stops prompt editing" in told
    assert syntax.problems("x \\| y [a:b:5]") == []


def test_a_text_that_is_too_long_is_told_with_both_numbers() -> None:
    (told,) = syntax.problems("(" * 20_001)
    assert "20,001" in told
    assert "20,000" in told
    assert syntax.problems("a" * 20_000) == []
