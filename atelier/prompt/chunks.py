"""A prompt's 75-token chunks, as the peer cuts them: each is read by the text encoder on its own, between a
start and an end mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from atelier.prompt import attention, comments, networks, plan, tokens

CHUNK = 75
"""Tokens of a chunk, without its start and end marks."""

EMPHASIS_OFF = "None"
"""The emphasis option under which brackets are literal text."""

PLACEHOLDER = 0
"""The identifier that stands where an embedding's vectors will."""


@dataclass(frozen=True)
class Chunk:
    """77 identifiers with the weight of each; the marks and the padding weigh 1.

    `fixes`: (place among the 77 of its first vector, name) of every embedding, in order.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    fixes: tuple[tuple[int, str], ...] = ()

    @property
    def emphasised(self) -> bool:
        """Whether any weight differs from 1."""
        return any(weight != 1.0 for weight in self.weights)


@dataclass(frozen=True)
class _Embedding:
    """An embedding's name as tokens, and how many tokens it stands for."""

    name: str
    ids: tuple[int, ...]
    vectors: int


_Book = dict[int, list[_Embedding]]


@lru_cache(maxsize=16)
def _book(embeddings: tuple[tuple[str, int], ...]) -> _Book:
    """Embeddings by the first token of their names, the longest name first."""
    book: _Book = {}
    for name, vectors in embeddings:
        ids = tuple(tokens.encode(name))
        if ids and vectors > 0:
            book.setdefault(ids[0], []).append(_Embedding(name, ids, min(vectors, CHUNK)))
    for known in book.values():
        known.sort(key=lambda each: -len(each.ids))
    return book


def _terms(ids: list[int], book: _Book) -> Iterator[int | _Embedding]:
    """The tokens with names of embeddings replaced by these."""
    place = 0
    while place < len(ids):
        known = book.get(ids[place], ())
        found = next((each for each in known if tuple(ids[place : place + len(each.ids)]) == each.ids), None)
        yield found or ids[place]
        place += len(found.ids) if found else 1


class _Cutter:
    """Fills chunks one token at a time. `comma` is the place of the open chunk's last comma, -1 without one;
    `used` counts tokens as the counter shows them: a chunk that was ended counts whole.
    """

    def __init__(self, backtrack: int) -> None:
        self.backtrack = backtrack
        self.done: list[Chunk] = []
        self.open: list[tuple[int, float]] = []
        self.fixes: list[tuple[int, str]] = []
        self.comma = -1
        self.used = 0

    def end_chunk(self, last: bool = False) -> None:
        padding = CHUNK - len(self.open)
        ids = (tokens.START, *(token for token, _ in self.open), *[tokens.END] * (padding + 1))
        weights = (1.0, *(weight for _, weight in self.open), *[1.0] * (padding + 1))
        self.done.append(Chunk(ids, weights, tuple((place + 1, name) for place, name in self.fixes)))
        self.used += len(self.open) if last else CHUNK
        self.open, self.fixes, self.comma = [], [], -1

    def add(self, term: int | _Embedding, weight: float) -> None:
        full = len(self.open) == CHUNK
        if term == tokens.COMMA:
            self.comma = len(self.open)
        elif full and self.backtrack and self.comma != -1 and CHUNK - self.comma <= self.backtrack:
            self._move_tail()
        vectors = term.vectors if isinstance(term, _Embedding) else 1
        if len(self.open) + vectors > CHUNK:
            self.end_chunk()
        if isinstance(term, _Embedding):
            self.fixes.append((len(self.open), term.name))
            self.open.extend([(PLACEHOLDER, weight)] * vectors)
        else:
            self.open.append((term, weight))

    def _move_tail(self) -> None:
        """What follows the last comma goes on into the next chunk, embeddings too."""
        start = self.comma + 1
        tail, fixes = self.open[start:], [each for each in self.fixes if each[0] >= start]
        del self.open[start:]
        self.fixes = [each for each in self.fixes if each[0] < start]
        self.end_chunk()
        self.open, self.fixes = tail, [(place - start, name) for place, name in fixes]

    def finish(self) -> None:
        if self.open or not self.done:
            self.end_chunk(last=True)


def _filled(prompt: str, backtrack: int, emphasis: str, embeddings: Mapping[str, int] | None) -> _Cutter:
    fragments = [(prompt, 1.0)] if emphasis == EMPHASIS_OFF else attention.parse(prompt)
    book = _book(tuple((embeddings or {}).items()))
    cutter = _Cutter(backtrack)
    for text, weight in fragments:
        if (text, weight) == attention.BREAK_FRAGMENT:
            cutter.end_chunk()
            continue
        for term in _terms(tokens.encode(text), book):
            cutter.add(term, weight)
    cutter.finish()
    return cutter


def _old_chunk(prompt: str, emphasis: str, embeddings: Mapping[str, int] | None) -> Chunk:
    """The one chunk of the old emphasis: tokens with brackets change the weight of what follows and vanish,
    with whatever else is in them; what does not fit is cut off, an embedding whole.
    """
    factors = {} if emphasis == EMPHASIS_OFF else tokens.bracket_factors()
    cutter = _Cutter(backtrack=0)
    weight = 1.0
    for term in _terms(tokens.encode(prompt), _book(tuple((embeddings or {}).items()))):
        if isinstance(term, int) and term in factors:
            weight *= factors[term]
            continue
        cutter.add(term, weight)
        if cutter.done:
            break
    cutter.finish()
    return cutter.done[0]


def cut(
    prompt: str,
    *,
    backtrack: int = 20,
    emphasis: str = "Original",
    embeddings: Mapping[str, int] | None = None,
    old_emphasis: bool = False,
) -> list[Chunk]:
    """The chunks of `prompt`, at least one. Never raises.

    `backtrack`: how many tokens after a comma may move on when a chunk is full. `embeddings`: name -> number
    of vectors; a name is found by its tokens, so in any case, the longest first, and its vectors stay in one
    chunk (of more than 75 the first 75). `old_emphasis`: brackets as the peer read them before 29 September
    2022: token by token, without weights, escapes and BREAK, and one chunk alone.
    """
    if old_emphasis:
        return [_old_chunk(prompt, emphasis, embeddings)]
    return _filled(prompt, backtrack, emphasis, embeddings).done


def count(
    prompt: str,
    *,
    backtrack: int = 20,
    emphasis: str = "Original",
    embeddings: Mapping[str, int] | None = None,
) -> tuple[int, int]:
    """(tokens, room) as the counter shows them: a chunk that was ended before the last token counts whole."""
    used = _filled(prompt, backtrack, emphasis, embeddings).used
    return used, CHUNK * max(1, -(-used // CHUNK))


def count_prompt(
    text: str,
    steps: int = 20,
    embeddings: Mapping[str, int] | None = None,
    *,
    positive: bool = True,
    backtrack: int = 20,
    emphasis: str = "Original",
) -> tuple[int, int]:
    """(tokens, room) of a whole prompt, styles applied: of its longest part at its longest step, without
    comments and, where it is `positive`, without network tags. Never raises.
    """
    words = comments.strip(text)
    if positive:
        words, _ = networks.extract(words)
    texts = plan.plan(words, max(1, steps), compose=positive).distinct()
    return max(count(each, backtrack=backtrack, emphasis=emphasis, embeddings=embeddings) for each in texts)
