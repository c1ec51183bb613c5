"""Prompt editing and alternation: what stands at which step, in both passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.prompt import schedule
from atelier.prompt.plan import plan

Entries = list[tuple[int, str]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("[a:b:+3]", [(3, "a"), (10, "b")]),
        ("[a:b:1e0]", [(1, "a"), (10, "b")]),
        ("[a:b:3.]", [(10, "a")]),
        ("[::3]", [(3, ""), (10, "")]),
        ("[a\\:b:c:3]", [(3, "a\\:b"), (10, "c")]),
        ("\\[a:b:3\\]", [(10, "\\[a:b:3\\]")]),
    ],
)
def test_edits_change_the_text_at_their_moment(text: str, expected: Entries) -> None:
    assert schedule.parse(text, 10) == expected


def test_an_escaped_bar_separates_nothing() -> None:
    assert schedule.parse("[a\\|b|c]", 2) == [(1, "a\\|b"), (2, "c")]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("1", [(1, "a"), (20, "b")]),
        ("1.0", [(20, "a")]),
        ("0", [(20, "b")]),
        ("25", [(20, "a")]),
        ("-1", [(20, "b")]),
        ("0.26", [(5, "a"), (20, "b")]),
        ("9" * 400, [(20, "a")]),
        ("-" + "9" * 400, [(20, "b")]),
    ],
)
def test_a_moment_is_a_step_or_with_a_point_a_fraction(when: str, expected: Entries) -> None:
    assert schedule.parse(f"[a:b:{when}]", 20) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a:b:25]", [(5, "a"), (10, "b")]),
        ("[a:b:1.5]", [(5, "a"), (10, "b")]),
        ("[a:b:0.5]", [(10, "b")]),
        ("[a:b:20]", [(10, "b")]),
        ("[a:b:40]", [(10, "a")]),
    ],
)
def test_the_second_pass_counts_on_from_the_first(text: str, expected: Entries) -> None:
    assert schedule.parse(text, 20, 10) == expected


def test_the_old_scheduling_counts_below_one_as_a_fraction_and_both_passes_alike() -> None:
    for hires in (None, 10):
        assert schedule.parse("[a:b:0.9]", 20, hires, old=True) == [(18, "a"), (20, "b")]
        assert schedule.parse("[a:b:1.5]", 20, hires, old=True) == [(1, "a"), (20, "b")]
        assert schedule.parse("[a:b:5]", 20, hires, old=True) == [(5, "a"), (20, "b")]


@pytest.mark.parametrize(
    "text", ["[a:b]", "[a|b:5]", "[a:b:c:5]", "[from:to:when]", "a [b", "a]b:5]", "[a:b:5"]
)
def test_what_is_no_schedule_stays_text(text: str) -> None:
    assert schedule.parse(text, 20) == [(20, text)]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("(a:[b:c:10]:1.2)", "(a:b:1.2)", "(a:c:1.2)"),
        ("(a:b:[c:d:5])", "(a:b:c)", "(a:b:d)"),
        ("(a:1.2)[b:c:5]:d", "(a:1.2)b:d", "(a:1.2)c:d"),
        ("a [{b|d{:.5] c", "a  c", "a {b|d{ c"),
        ("[{b|d}:x:5] e", "{b|d} e", "x e"),
        ("[a [b:c:5]", "[a b", "[a c"),
        ("[(a:b:c):d:5] [e:f:5]", "[(a:b:c):d:5] e", "[(a:b:c):d:5] f"),
        ("a [b:c:5] ) ] : (d", "a b ) ] : (d", "a c ) ] : (d"),
    ],
)
def test_texts_with_several_readings_have_the_documented_one(text: str, first: str, last: str) -> None:
    entries = schedule.parse(text, 20)
    assert (entries[0][1], entries[-1][1]) == (first, last)


@pytest.mark.parametrize(
    "text", ["x | y [a:b:5]", "[a:b:5] (c|d)", "[a|b [c:d:5]", "[a:b:5]\\", "[a:b:5]\\\nx"]
)
def test_a_mark_without_a_place_leaves_the_whole_text_unread(text: str) -> None:
    assert schedule.parse(text, 20) == [(20, text)]


def test_alternation_takes_turns_and_nests() -> None:
    assert [text for _, text in schedule.parse("[a|[b|c]]", 4)] == ["a", "c", "a", "c"]
    assert [text for _, text in schedule.parse("[a|b||]", 5)] == ["a", "b", "", "", "a"]


def test_an_entry_holds_until_its_end_counted_from_zero() -> None:
    compiled = schedule.compile("[a:b:3]")
    assert [compiled.at(step, 6) for step in range(7)] == ["a"] * 4 + ["b"] * 3
    alternating = schedule.compile("[a|b]")
    assert [alternating.at(step, 4) for step in range(5)] == ["a", "a", "b", "a", "b"]


def test_past_the_last_entry_the_first_holds_again() -> None:
    assert schedule.compile("[a:b:3]").at(7, 6) == "a"


def test_a_long_alternation_is_not_put_together_for_steps_nobody_asks_for() -> None:
    timeline = schedule.compile("[a|b|c] " + "x" * 19_990).timeline(150)
    assert len(timeline.ends) == 150
    assert timeline.at(7) is timeline.at(4)
    assert len(timeline.distinct()) == 3
    entries = schedule.compile("[a|b]" + "y" * 19_990).spans(150)
    assert next(entries)[1][:2] == "ay"


def test_a_plan_has_a_weight_and_a_schedule_for_each_part() -> None:
    made = plan("[red:green:2] circle :1.5 AND star:0.5", 4)
    assert made.texts_at(0) == [("red circle", 1.5), (" star", 0.5)]
    assert made.texts_at(3) == [("green circle", 1.5), (" star", 0.5)]
    assert made.texts_at(0) is made.texts_at(2)
    assert made.spans() == [(0, 2), (3, 4)]
    assert made.distinct() == ["red circle", "green circle", " star"]
    assert not made.constant


def test_a_negative_prompt_is_one_part_whatever_it_says() -> None:
    made = plan("green AND blue:0.5", 4, compose=False)
    assert made.texts_at(0) == [("green AND blue:0.5", 1.0)]
    assert made.constant


def test_and_is_split_before_schedules_are_read() -> None:
    assert plan("[a AND b:c:2]", 4).texts_at(0) == [("[a", 1.0), (" b:c:2]", 1.0)]


@given(
    st.text(alphabet="ab[]:|.5 AND", max_size=40),
    st.integers(1, 12),
    st.none() | st.integers(1, 12),
    st.booleans(),
)
def test_a_plan_says_at_each_step_what_the_entries_say(
    text: str, steps: int, hires: int | None, old: bool
) -> None:
    made = plan(text, steps, hires, old, compose=False)
    entries = schedule.parse(text, steps, hires, old)
    for step in range(entries[-1][0] + 1):
        assert made.texts_at(step) == [(next(each for end, each in entries if end >= step), 1.0)]
    assert set(made.distinct()) == {each for _, each in entries}
    first_steps = [first for first, _ in made.spans()]
    assert first_steps == [0, *(end + 1 for end, _ in entries[:-1])]


def trees() -> st.SearchStrategy[object]:
    """Prompts as trees: text, emphasis, edits and alternations inside each other."""
    words = st.sampled_from(["a", "red cat", "\\[x\\]", "1", " ", "", "é, b"])
    return st.recursive(
        words,
        lambda inner: st.one_of(
            st.tuples(st.just("both"), inner, inner),
            st.tuples(st.just("("), inner),
            st.tuples(st.just("["), inner),
            st.tuples(st.just("edit"), inner, inner, st.integers(0, 9)),
            st.tuples(st.just("alternate"), st.lists(inner, min_size=2, max_size=3)),
        ),
        max_leaves=8,
    )


def written(tree: object) -> str:
    match tree:
        case str():
            return tree
        case ("both", left, right):
            return written(left) + written(right)
        case ("(", inner):
            return f"({written(inner)}:1.2)"
        case ("[", inner):
            return f"[{written(inner)}]"
        case ("edit", before, after, when):
            return f"[{written(before)}:{written(after)}:{when}]"
        case ("alternate", options):
            return f"[{'|'.join(map(written, options))}]"
    raise AssertionError(tree)


def shown(tree: object, step: int) -> str:
    match tree:
        case str():
            return tree
        case ("both", left, right):
            return shown(left, step) + shown(right, step)
        case ("(", inner):
            return f"({shown(inner, step)}:1.2)"
        case ("[", inner):
            return f"[{shown(inner, step)}]"
        case ("edit", before, after, when):
            return shown(before if step <= when else after, step)
        case ("alternate", options):
            return shown(options[(step - 1) % len(options)], step)
    raise AssertionError(tree)


@given(trees())
def test_a_schedule_that_was_written_down_says_at_each_step_what_was_meant(tree: object) -> None:
    for end, text in schedule.parse(written(tree), 6):
        assert text == shown(tree, end)
