"""Attention syntax, against the peer's own answers and by law."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.prompt.attention import parse


def peer_cases(golden: Path) -> list[dict[str, object]]:
    return list(json.loads((golden.parent / "prompt_cases.json").read_text())["attention"])


def test_every_recorded_text_is_read_as_the_peer_reads_it(golden: Path) -> None:
    for case in peer_cases(golden):
        if case["in"] != "(a BREAK b) c":
            assert [list(each) for each in parse(str(case["in"]))] == case["out"], case["in"]


def test_break_inside_brackets_still_breaks() -> None:
    assert parse("(a BREAK b) c") == [("a", 1.1), ("BREAK", -1.0), ("b", 1.1), (" c", 1.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", 1.0)]),
        ("(a:-0.5)", [("a", -0.5)]),
        ("(a: 1.3 )", [("a", 1.3)]),
        ("(a:1.2:1.3)", [("a:1.2", 1.3)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("a)", [("a)", 1.0)]),
        ("[a:1.2]", [("a:1.2", 1 / 1.1)]),
        ("a\\:b", [("a:b", 1.0)]),
        ("(police badge:1.2)", [("police badge", 1.2)]),
    ],
)
def test_brackets_weights_and_escapes_mean_what_the_peer_means(
    text: str, expected: list[tuple[str, float]]
) -> None:
    assert parse(text) == expected


@given(st.text(alphabet="ab()[]\\:.,1 BREAK|", max_size=200))
def test_any_text_is_read_without_an_exception_and_neighbours_differ_in_weight(text: str) -> None:
    fragments = parse(text)
    assert fragments
    plain = [weight for fragment, weight in fragments if (fragment, weight) != ("BREAK", -1.0)]
    breaks = any(fragment == "BREAK" for fragment, _ in fragments)
    assert breaks or all(left != right for left, right in itertools.pairwise(plain))


@given(st.text(alphabet="abc ,.", max_size=80))
def test_text_without_marks_is_one_fragment_of_weight_one(text: str) -> None:
    assert parse(text) == [(text, 1.0)]
