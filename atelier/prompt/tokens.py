"""CLIP's tokens: byte-pair encoding with the vocabulary of openai/CLIP (`data/`, MIT), in the standard
library alone.

The identifiers are those of every Stable Diffusion 1.x text encoder; the vocabulary's 48,894 merges are all
it takes.
"""

from __future__ import annotations

import gzip
import heapq
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise

START = 49406
END = 49407
COMMA = 267
"""The identifier of a comma that ends a word: where a full chunk may be broken."""

_MERGES = 49152 - 256 - 2
_SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
_ASCII_WORD = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+",
)
_WHOLE = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'(?:s|t|re|ve|m|ll|d)")


def _byte_letters() -> dict[int, str]:
    """A printable character for each byte, in the vocabulary's order (GPT-2's reversible byte alphabet)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = {byte: chr(byte) for byte in printable}
    for number, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + number)
    return letters


class _Vocabulary:
    """Identifiers of word pieces and the ranks of the merges that make them."""

    def __init__(self) -> None:
        packed = (resources.files("atelier.prompt") / "data" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
        lines = gzip.decompress(packed).decode().split("\n")
        merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
        self.letters = _byte_letters()
        alphabet = list(self.letters.values())
        pieces = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in merges]
        self.ids = {piece: number for number, piece in enumerate(pieces)}
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}


@cache
def _vocabulary() -> _Vocabulary:
    return _Vocabulary()


def _kind(letter: str) -> str:
    """Letter, number, space or other: the classes of the word pattern."""
    return " " if letter.isspace() else {"L": "L", "N": "N"}.get(unicodedata.category(letter)[0], "o")


def _words(text: str) -> Iterator[str]:
    """`text` cut into words: contractions, runs of letters, single digits, runs of anything else that is no
    space.
    """
    place = 0
    while place < len(text):
        whole = _WHOLE.match(text, place)
        kind = _kind(text[place])
        end = whole.end() if whole else place + 1
        if not whole and kind in "Lo":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[place:end]
        place = end


_REMEMBERED = 64
"""Characters of the longest word whose pieces are kept: words of a person, not of an attack on the memory."""


@lru_cache(maxsize=8192)
def _known_pieces(word: str) -> tuple[int, ...]:
    return _pieces(word)


def _pieces(word: str) -> tuple[int, ...]:
    vocabulary = _vocabulary()
    letters = [vocabulary.letters[byte] for byte in word.encode(errors="replace")]
    merged = _merged([*letters[:-1], letters[-1] + "</w>"], vocabulary.ranks)
    return tuple(vocabulary.ids[part] for part in merged)


def _merged(letters: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """The letters after all merges: the best pair everywhere, from the left, again and again.

    A heap of pairs and a list of neighbours keep the work near the word's length, also for one of thousands
    of letters.
    """
    parts: list[str | None] = [*letters]
    after, before = list(range(1, len(parts) + 1)), list(range(-1, len(parts) - 1))
    queue = [
        (ranks[pair], place, pair[0], pair[1])
        for place, pair in enumerate(pairwise(letters))
        if pair in ranks
    ]
    heapq.heapify(queue)
    while queue:
        _, place, left, right = heapq.heappop(queue)
        behind = after[place]
        if parts[place] != left or behind >= len(parts) or parts[behind] != right:
            continue
        parts[place], parts[behind] = left + right, None
        after[place] = after[behind]
        if after[place] < len(parts):
            before[after[place]] = place
        for start in (before[place], place):
            _queue_pair(queue, start, parts, after, ranks)
    return [part for part in parts if part is not None]


def _queue_pair(
    queue: list[tuple[int, int, str, str]],
    start: int,
    parts: list[str | None],
    after: list[int],
    ranks: Mapping[tuple[str, str], int],
) -> None:
    """Put the pair at `start` in the queue if there is a merge for it."""
    if start < 0 or after[start] >= len(parts):
        return
    left, right = parts[start] or "", parts[after[start]] or ""
    if (rank := ranks.get((left, right))) is not None:
        heapq.heappush(queue, (rank, start, left, right))


@cache
def bracket_factors() -> Mapping[int, float]:
    """What the old emphasis makes of the vocabulary's pieces with brackets in them: identifier -> the factor
    by which it changes the weight of all that follows. Pieces whose factor is 1 are left out.
    """
    found: dict[int, float] = {}
    for piece, number in _vocabulary().ids.items():
        factor = 1.0
        for letter in piece:
            # Divided, not multiplied by 1 / 1.1: the last digits are the peer's.
            factor = factor * 1.1 if letter in "(]" else factor / 1.1 if letter in ")[" else factor
        if factor != 1.0:
            found[number] = factor
    return found


def encode(text: str) -> list[int]:
    """The identifiers of `text`, without start and end marks and of any length."""
    lowered = unicodedata.normalize("NFC", text).lower()
    words = _ASCII_WORD.findall(lowered) if lowered.isascii() else _words(lowered)
    out: list[int] = []
    for word in words:
        if word in _SPECIAL:
            out.append(_SPECIAL[word])
        else:
            out.extend(_known_pieces(word) if len(word) <= _REMEMBERED else _pieces(word))
    return out
