"""Networks and embeddings of an infotext under the names they have here: a file is known by its hash, however
it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

Names = Mapping[str, tuple[str, ...]]
"""Hash of a file, in the lengths that texts give it -> what it is called here, the name for prompts first."""

LORAS, EMBEDDINGS, HYPERNETWORKS = "Lora hashes", "TI hashes", "Hypernet hashes"
NOBODY: Names = MappingProxyType({})
_TAGS = {LORAS: ("lora", "lyco"), HYPERNETWORKS: ("hypernet",)}
_TAG = re.compile(r"<(\w+):([^:>]+)(?=[:>])")
_POSITIVE = ("Prompt", "Hires prompt")
_ALL = (*_POSITIVE, "Negative prompt", "Hires negative prompt")
_MOST_WORDS = 100
"""Embeddings of one text that are looked for; each makes looking a little slower."""


def hashes(value: str) -> dict[str, str]:
    """Name -> hash, in small letters, of an entry like "Lora hashes": `a: 0123456789ab, b: ...`."""
    pairs = (each.partition(":") for each in value.split(","))
    return {
        name.strip(): digest.strip().lower() for name, _, digest in pairs if name.strip() and digest.strip()
    }


def rename(found: dict[str, object], here: Mapping[str, Names]) -> None:
    """Call the files that an entry of `here` (entry -> names) gives hashes of by their names here, in the
    prompts of `found`. A name that means the file here too stays.
    """
    renamed = {label: _renamed(str(found.get(label, "")), names) for label, names in here.items()}
    tags = {
        (kind, old): new
        for label, kinds in _TAGS.items()
        for kind in kinds
        for old, new in renamed.get(label, {}).items()
    }
    if tags:
        _replace(found, _POSITIVE, _TAG, lambda tag: _tag(tag, tags))
    words = dict([*renamed.get(EMBEDDINGS, {}).items()][:_MOST_WORDS])
    if words:
        longest_first = sorted(words, key=len, reverse=True)
        known = {old.lower(): new for old, new in words.items()}
        word = re.compile(
            rf"<[^>]*>|(?<![\w-])({'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE
        )
        _replace(found, _ALL, word, lambda match: known[match[1].lower()] if match[1] else match[0])


def _renamed(value: str, names: Names) -> dict[str, str]:
    """Old name -> new one, of the files that are called something else here."""
    by_name = hashes(value) if names else {}
    return {
        old: names[digest][0]
        for old, digest in by_name.items()
        if digest in names and old not in names[digest]
    }


def _tag(tag: re.Match[str], tags: Mapping[tuple[str, str], str]) -> str:
    # The entry writes a name without the signs that part it from the next.
    new = tags.get((tag[1], tag[2].replace(",", "").strip()))
    return tag[0] if new is None else f"<{tag[1]}:{new}"


def _replace(
    found: dict[str, object],
    keys: tuple[str, ...],
    pattern: re.Pattern[str],
    new: Callable[[re.Match[str]], str],
) -> None:
    for key in keys:
        if key in found:
            found[key] = pattern.sub(new, str(found[key]))
