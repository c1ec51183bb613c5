"""Prompts into chunks, and what weights do to an encoding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atelier.prompt import chunks, tokens
from workers.engine.rows import Context
from workers.engine.text import emphasis
from workers.engine.text.encoder import PromptCache, TextOptions

RED = tokens.encode("red")[0]


def test_a_short_prompt_is_one_chunk_between_its_marks() -> None:
    (chunk,) = chunks.cut("a red circle", backtrack=20, emphasis="Original")
    assert len(chunk.ids) == 77
    assert chunk.ids[0] == tokens.START
    assert chunk.ids[1:4] == tuple(tokens.encode("a red circle"))
    assert set(chunk.ids[4:]) == {tokens.END}
    assert not chunk.emphasised


def test_an_empty_prompt_is_a_chunk_of_padding() -> None:
    (chunk,) = chunks.cut("", backtrack=20, emphasis="Original")
    assert chunk.ids == (tokens.START, *[tokens.END] * 76)


@pytest.mark.parametrize(("words", "count"), [(75, 1), (76, 2), (150, 2), (151, 3)])
def test_75_tokens_make_a_chunk(words: int, count: int) -> None:
    cut = chunks.cut(" ".join(["red"] * words), backtrack=20, emphasis="Original")
    assert len(cut) == count
    assert sum(chunk.ids.count(RED) for chunk in cut) == words


def test_break_ends_a_chunk_also_inside_brackets() -> None:
    for prompt in ("red BREAK red", "(red BREAK red:1.2)"):
        assert len(chunks.cut(prompt, backtrack=20, emphasis="Original")) == 2


def test_what_follows_a_late_comma_goes_into_the_next_chunk() -> None:
    prompt = " ".join(["red"] * 70) + ", " + " ".join(["red"] * 20)
    with_backtracking = chunks.cut(prompt, backtrack=20, emphasis="Original")
    without = chunks.cut(prompt, backtrack=0, emphasis="Original")
    assert with_backtracking[0].ids.count(RED) == 70
    assert without[0].ids.count(RED) == 74


def test_each_token_carries_its_weight_and_none_reads_brackets_as_text() -> None:
    (chunk,) = chunks.cut("a (red:1.5)", backtrack=20, emphasis="Original")
    assert chunk.weights[chunk.ids.index(RED)] == 1.5
    (literal,) = chunks.cut("a (red:1.5)", backtrack=20, emphasis="None")
    assert not literal.emphasised
    assert len(set(literal.ids)) > len(set(chunk.ids))


def test_tokens_are_those_of_the_published_tokenizer(golden: Path) -> None:
    from transformers import CLIPTokenizer

    published = CLIPTokenizer.from_pretrained(str(golden / "models" / "clip_tiny"))
    texts = [
        "a red circle on a blue background",
        "Hello, World!!",
        "naïve café 日本語 🎨",
        "it's  1920x1080 (x)",
        "don't",
    ]
    for text in texts:
        assert tokens.encode(text) == published(text, add_special_tokens=False)["input_ids"], text


def test_original_emphasis_keeps_the_mean_and_no_norm_does_not() -> None:
    state = torch.randn(77, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    weights = torch.ones(77)
    weights[3] = 2.0
    kept = emphasis.apply(state, weights, "Original")
    plain = emphasis.apply(state, weights, "No norm")
    assert float(kept.mean()) == pytest.approx(float(state.mean()), rel=1e-5)
    assert torch.equal(plain[3], state[3] * 2)
    assert torch.equal(emphasis.apply(state, weights, "Ignore"), state)


def test_an_encoding_of_mean_zero_is_weighted_without_becoming_nothing() -> None:
    state = torch.zeros(77, 2)
    state[:, 0], state[:, 1] = 1.0, -1.0
    weights = torch.ones(77)
    weights[5] = 1.5
    assert bool(torch.isfinite(emphasis.apply(state, weights, "Original")).all())


def test_prompts_are_remembered_by_their_last_use_and_within_a_bound() -> None:
    plain, skipped = TextOptions(), TextOptions(clip_skip=2)
    contexts = [Context(torch.zeros(77, 8)) for _ in range(4)]
    cache = PromptCache(2 * contexts[0].tensor.nbytes)
    cache.put("weights", "a dog", plain, contexts[0])
    cache.put("weights", "a dog", skipped, contexts[1])
    assert cache.get("weights", "a dog", plain) is contexts[0]
    cache.put("other weights", "a dog", plain, contexts[2])
    assert cache.get("weights", "a dog", skipped) is None
    assert cache.get("weights", "a dog", plain) is contexts[0]
    assert cache.get("other weights", "a dog", plain) is contexts[2]
    large = Context(torch.zeros(7 * 77, 8))
    cache.put("weights", "a long story", plain, large)
    assert cache.get("weights", "a long story", plain) is large
    assert cache.get("weights", "a dog", plain) is None
