"""What holds for every text: nothing raises, the same text means the same, work grows with the length."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.prompt import attention, chunks, comments, composition, networks, schedule, styles, syntax
from atelier.prompt.plan import plan
from atelier.prompt.schedule_syntax import read

LONGEST = 20_000
MARKS = "()[]{}<>\\:|#,. \n\tab1.5-+BREAK AND é日🎨\x00\x1f"
NASTY = (
    "[ ] ( ) [] () ][ )( ([ ([)] \\ \\[ : | [a| [a: (a: [: [|] [a:b:.5] [[a:b:3]:c:5] [a|b] (a:1.2) "
    ":1.1) (a [a a) a:1 {| [{| , a, AND BREAK (BREAK < <a: <a:b> # ((((a)) [[a]:1] 🎨( [a:(b:1)|c]"
).split()
NASTY += [" ", "\n", "a, ", "AND ", " AND a:1", "BREAK ", "# \n", ": "]


def repeated(seed: str, size: int) -> str:
    """The seed as often as it fits whole."""
    return seed * (size // len(seed))


def nested(seed: str, size: int) -> str:
    """The seed again and again, then as many of the marks that close it."""
    closing = "".join({"[": ":1]", "(": ":1.1)"}.get(letter, "") for letter in reversed(seed)) or "]"
    times = size // len(seed + closing)
    return seed * times + closing * times


WORK: dict[str, Callable[[str], int]] = {
    "schedule": lambda text: read(text).work,
    "attention": lambda text: attention.read(text).work,
    "composition": lambda text: len(composition.parse(text)),
}


SHAPES: list[Callable[[str, int], str]] = [repeated, nested]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reader", list(WORK))
def test_twice_the_text_is_at_most_two_and_a_half_times_the_work(
    reader: str, shape: Callable[[str, int], str]
) -> None:
    for seed in NASTY:
        half, whole = (WORK[reader](shape(seed, size)) for size in (LONGEST // 2, LONGEST))
        assert 0 < whole <= 2.5 * half + 20, (seed, half, whole)
        assert whole <= 15 * LONGEST, (seed, whole)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(NASTY), min_size=1, max_size=5).map("".join), st.sampled_from(SHAPES))
def test_work_stays_in_proportion_whatever_is_repeated(seed: str, shape: Callable[[str, int], str]) -> None:
    for name, work in WORK.items():
        small, large = work(shape(seed, 1_000)), work(shape(seed, 2_000))
        assert large <= 2.5 * small + 100, (name, seed, small, large)


def everything(text: str) -> list[object]:
    """All that the language makes of a text."""
    made = plan(text, 7)
    tags = networks.extract(text)
    return [
        attention.parse(text),
        schedule.parse(text, 7),
        schedule.parse(text, 7, 5),
        schedule.parse(text, 7, 5, old=True),
        composition.parse(text),
        comments.strip(text),
        tags,
        [networks.tag(kind, arguments) for kind, arguments in tags[1]],
        [made.texts_at(step) for step in (0, 3, 6, 100)],
        made.spans(),
        chunks.cut(text, embeddings={"a": 3, "ab": 80}),
        chunks.cut(text, old_emphasis=True),
        chunks.count_prompt(text, 3),
        syntax.problems(text),
        styles.extract(text, text, {"s": (text, ""), "t": ("x {prompt}", "{prompt}")}),
    ]


@given(st.text(alphabet=st.sampled_from(MARKS), max_size=60) | st.text(max_size=60))
def test_any_text_has_a_meaning_and_always_the_same(text: str) -> None:
    assert everything(text) == everything(text)


@pytest.mark.parametrize("seed", NASTY[::3])
def test_the_longest_texts_have_a_meaning(seed: str) -> None:
    for text in (repeated(seed, LONGEST), nested(seed, LONGEST)):
        fragments = attention.parse(text)
        entries = schedule.parse(text, 3)
        assert fragments and entries[-1][0] == 3
        assert composition.parse(text) and networks.extract(text) and comments.strip(text) is not None
        assert chunks.count(text)[0] <= chunks.count(text)[1]


FRAGMENTS = st.lists(
    st.tuples(
        st.text(alphabet=st.sampled_from("()[]\\:ab1. |BREAK-"), min_size=1, max_size=12),
        st.sampled_from([1.0, 1.1, 0.5, -1.0, 0.0, 1.5730000000000004, 1e-7, 2.5e6]),
    )
    | st.just(attention.BREAK_FRAGMENT),
    max_size=6,
)


def normalised(fragments: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Without empty texts, neighbours of one weight joined, no space around a BREAK."""
    out: list[tuple[str, float]] = []
    for text, weight in fragments:
        if (
            text
            and out
            and out[-1][1] == weight
            and attention.BREAK_FRAGMENT not in (out[-1], (text, weight))
        ):
            out[-1] = (out[-1][0] + text, weight)
        elif text:
            out.append((text, weight))
    return out


def unspaced(fragments: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Space next to a BREAK goes when the text is read; a comparison leaves all space out."""
    return normalised([("".join(text.split()), weight) for text, weight in fragments])


@given(FRAGMENTS)
def test_fragments_that_were_written_down_are_read_again(fragments: list[tuple[str, float]]) -> None:
    again = attention.parse(attention.render(fragments))
    if attention.BREAK_FRAGMENT in fragments:
        assert unspaced(again) == unspaced(fragments)
    else:
        assert normalised(again) == normalised(fragments)


@given(st.text(alphabet="()[]\\:ab1. BREAK", max_size=60))
def test_what_was_read_can_be_written_down_and_means_the_same(text: str) -> None:
    fragments = attention.parse(text)
    assert unspaced(attention.parse(attention.render(fragments))) == unspaced(fragments)


def naive(text: str) -> list[tuple[str, float]]:
    """Brackets alone, each closing one multiplying every letter since its partner: slow, and obvious."""
    found: list[tuple[str, float]] = []
    open_at: dict[str, list[int]] = {"(": [], "[": []}
    factors = {"(": 1.1, "[": 1 / 1.1}
    closed = {")": "(", "]": "["}

    def close(kind: str) -> None:
        start = open_at[kind].pop()
        found[start:] = [(letter, weight * factors[kind]) for letter, weight in found[start:]]

    for letter in text:
        if letter in open_at:
            open_at[letter].append(len(found))
        elif letter in closed and open_at[closed[letter]]:
            close(closed[letter])
        else:
            found.append((letter, 1.0))
    for kind in open_at:
        while open_at[kind]:
            close(kind)
    return normalised(found)


@given(st.text(alphabet="(([[)]ab", max_size=60))
def test_weights_are_those_of_multiplying_bracket_by_bracket_also_crosswise(text: str) -> None:
    assert normalised(attention.parse(text)) == naive(text)


def test_weights_inside_very_many_brackets_are_right_but_for_rounding() -> None:
    text = "(" * 60 + "a" + "[" * 50 + "b" + "]" * 50 + "c" + ")" * 59
    expected = [("a", 1.1**60), ("b", 1.1**10), ("c", 1.1**60)]
    for (found, weight), (letter, right) in zip(attention.parse(text), expected, strict=True):
        assert found == letter
        assert weight == pytest.approx(right, rel=1e-12)


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab: .1", max_size=8),
            st.sampled_from(["", ":1", " : -0.5", ":+.25", ":2. "]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_composition_has_the_weights_it_was_written_with(parts: list[tuple[str, str]]) -> None:
    words = [("x" + text + "y", weight) for text, weight in parts]
    found = composition.parse(" AND ".join(text + weight for text, weight in words))
    assert [text.lstrip() for text, _ in found] == [text for text, _ in words]
    assert [weight for _, weight in found] == [float(weight.strip(" :") or 1) for _, weight in words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fANDom", [("fANDom", 1.0)]),
        ("(a:1.2) AND b:1", [("(a:1.2)", 1.0), (" b", 1.0)]),
        ("a cat :1.2 AND a dog AND a penguin :2.2", [("a cat", 1.2), (" a dog", 1.0), (" a penguin", 2.2)]),
        ("a:1e2", [("a:1e2", 1.0)]),
        ("a and b", [("a and b", 1.0)]),
    ],
)
def test_only_the_whole_word_divides_and_only_a_number_weighs(
    text: str, expected: list[tuple[str, float]]
) -> None:
    assert composition.parse(text) == expected
