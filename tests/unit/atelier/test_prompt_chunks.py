"""Embeddings by name, the old emphasis, the counter, and tokens of long words."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.prompt import chunks, tokens

BOOK = {"tiny-ti": 2, "tiny-ti2": 3, "big": 75, "huge": 200}
RED = tokens.encode("red")[0]


def reds(number: int) -> str:
    return "red " * number


def test_an_embedding_is_found_by_its_name_in_any_case_and_takes_its_weight() -> None:
    (chunk,) = chunks.cut("a (Tiny-TI:1.4) red", embeddings=BOOK)
    assert chunk.fixes == ((2, "tiny-ti"),)
    assert chunk.ids[1:5] == (*tokens.encode("a"), 0, 0, RED)
    assert chunk.weights[1:5] == (1.0, 1.4, 1.4, 1.0)


def test_the_longest_name_wins() -> None:
    (chunk,) = chunks.cut("a tiny-ti2 tiny-ti", embeddings=BOOK)
    assert chunk.fixes == ((2, "tiny-ti2"), (5, "tiny-ti"))


@pytest.mark.parametrize(("words", "where"), [(73, [((74, "tiny-ti"),)]), (74, [(), ((1, "tiny-ti"),)])])
def test_an_embedding_that_does_not_fit_moves_on_whole(words: int, where: list[object]) -> None:
    cut = chunks.cut(reds(words) + "tiny-ti", embeddings=BOOK)
    assert [chunk.fixes for chunk in cut] == where
    assert [chunk.ids.count(RED) for chunk in cut] == [words, 0][: len(where)]


def test_an_embedding_behind_the_last_comma_moves_with_what_follows_it() -> None:
    cut = chunks.cut(reds(70) + ", tiny-ti red red red", embeddings=BOOK)
    assert [chunk.fixes for chunk in cut] == [(), ((1, "tiny-ti"),)]
    assert [chunk.ids.count(RED) for chunk in cut] == [70, 3]


def test_an_embedding_fills_one_chunk_at_most() -> None:
    cut = chunks.cut("red huge red big", embeddings=BOOK)
    assert [chunk.fixes for chunk in cut] == [(), ((1, "huge"),), (), ((1, "big"),)]
    assert all(len(chunk.ids) == 77 for chunk in cut)


@given(
    st.lists(st.sampled_from(["red", ",", "tiny-ti", "tiny-ti2", "big", "BREAK", "(red:1.2)"]), max_size=200)
)
def test_every_embedding_is_in_one_chunk_and_none_is_lost(words: list[str]) -> None:
    cut = chunks.cut(" ".join(words), embeddings=BOOK)
    found = [name for chunk in cut for _, name in chunk.fixes]
    assert found == [word for word in words if word in BOOK]
    for chunk in cut:
        assert len(chunk.ids) == len(chunk.weights) == 77
        held = [place for start, name in chunk.fixes for place in range(start, start + BOOK[name])]
        assert held == [place for place, token in enumerate(chunk.ids) if token == chunks.PLACEHOLDER]
        assert 0 not in held and 76 not in held
    assert sum(chunk.ids.count(RED) for chunk in cut) == sum("red" in word for word in words)


def test_the_old_emphasis_weighs_token_by_token_and_eats_what_sticks_to_brackets() -> None:
    (chunk,) = chunks.cut("a (((farm))), daytime", old_emphasis=True)
    assert list(chunk.ids[1:4]) == tokens.encode("a farm daytime")
    assert chunk.weights[2] == pytest.approx(1.1**3)
    assert chunk.weights[3] == pytest.approx(1.0)
    (square,) = chunks.cut("[red] (red BREAK", old_emphasis=True)
    assert square.weights[1] == pytest.approx(1 / 1.1)
    assert square.weights[2] == pytest.approx(1.1)


def test_the_old_emphasis_has_one_chunk_and_knows_no_numbers() -> None:
    (chunk,) = chunks.cut(reds(80), old_emphasis=True)
    assert chunk.ids.count(RED) == 75
    (numbered,) = chunks.cut("(red:1.3)", old_emphasis=True)
    assert list(numbered.ids[1:6]) == tokens.encode("red:1.3")
    (cut_off,) = chunks.cut(reds(74) + "tiny-ti red", old_emphasis=True, embeddings=BOOK)
    assert cut_off.fixes == ()
    (literal,) = chunks.cut("(red)", old_emphasis=True, emphasis="None")
    assert list(literal.ids[1:4]) == tokens.encode("(red)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 75)),
        ("red red", (2, 75)),
        (reds(75), (75, 75)),
        (reds(76), (76, 150)),
        ("red <lora:x:1> # red red\nred", (2, 75)),
        ("red AND red red :0.5", (2, 75)),
        ("[red:red red red:5]", (3, 75)),
        ("[red|red red]", (2, 75)),
        ("red BREAK red", (76, 150)),
        ("tiny-ti red", (3, 75)),
    ],
)
def test_the_counter_shows_the_longest_part_at_its_longest_step(text: str, expected: tuple[int, int]) -> None:
    assert chunks.count_prompt(text, embeddings=BOOK) == expected


def test_the_counter_leaves_and_and_tags_in_a_negative_prompt() -> None:
    assert chunks.count_prompt("red AND red", positive=False) == (3, 75)
    assert chunks.count_prompt("<lora:x:1>", positive=False)[0] > 0


def merged_one_rule_at_a_time(letters: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while pairs := [pair for pair in pairwise(letters) if pair in ranks]:
        best = min(pairs, key=lambda pair: ranks[pair])
        out: list[str] = []
        for letter in letters:
            if out and (out[-1], letter) == best and not out[-1].startswith("\0"):
                out[-1] = "\0" + out[-1] + letter
            else:
                out.append(letter)
        letters = [each.lstrip("\0") for each in out]
    return letters


@given(st.text(alphabet="abehilnorst", min_size=1, max_size=30))
def test_a_word_is_merged_rule_by_rule_in_their_order(word: str) -> None:
    ranks = dict(tokens._vocabulary().ranks)
    letters = [*word[:-1], word[-1] + "</w>"]
    assert tokens._merged(letters, ranks) == merged_one_rule_at_a_time(letters, ranks)


def test_a_word_of_twenty_thousand_letters_is_cut_without_being_remembered() -> None:
    before = tokens._known_pieces.cache_info().currsize
    assert len(tokens.encode("abcdefghij" * 2_000)) > 2_000
    assert tokens._known_pieces.cache_info().currsize == before
