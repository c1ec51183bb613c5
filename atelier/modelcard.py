"""What the file of a network says of itself: alias, base family, hash without its header, trigger words.

The keys beginning with `ss_` and `sshs_` are written by kohya-ss/sd-scripts, those with `modelspec.` by
Stability's ModelSpec.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.modelfile import Header

MAX_SUGGESTED = 40
"""Trigger words that are suggested at most."""
MAX_COUNT = 2**32
"""Of pictures at which a tag stands."""
_CHUNK = 8 * 2**20
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the text that cross-attention reads, by family."""
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What controls a terminal, ends a line, or is half a character."""
_ENDS_TAG = re.compile(r"[<>:]")
_READS_TEXT = re.compile(
    r"attn2[._]to_k.*(?:lora_down|lora_A|hada_w1_b|lokr_w1_b|weight)", re.ASCII | re.IGNORECASE
)


def legible(text: str) -> str:
    """`text` with what no database and no answer can hold replaced: half characters, and NUL."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def one_line(name: str) -> bool:
    """Whether `name` is one line of whole characters, as it stands in lists, infotexts and databases."""
    return not _UNWRITABLE.search(name)


def alias(metadata: Mapping[str, str]) -> str | None:
    """The name its trainer gave the network, by which prompts may call it; None where a tag cannot say it."""
    given = str(metadata.get("ss_output_name") or "").strip()
    if not given or given.lower() == "none" or not one_line(given) or _ENDS_TAG.search(given):
        return None
    return given[:255]


def addnet_hash(path: Path, metadata: Mapping[str, str], data_offset: int) -> str:
    """kohya's hash of a network: sha256 of the file without its header, which editing the metadata leaves
    alone. Raises OSError.
    """
    stated = str(metadata.get("sshs_model_hash") or "").lower()
    if _HEX.match(stated):
        return stated
    digest = hashlib.sha256()
    with path.open("rb") as source:
        source.seek(data_offset)
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def base_family(header: Header) -> str | None:
    """The family a LoRA, embedding or ControlNet was made for: by its metadata, else by its shapes; None
    where neither tells.
    """
    return _stated_family(header.metadata) or _shaped_family(header)


def _stated_family(metadata: Mapping[str, str]) -> str | None:
    spec = str(metadata.get("modelspec.architecture") or "").lower()
    base = str(metadata.get("ss_base_model_version") or "").lower()
    if base.startswith("sdxl") or "stable-diffusion-xl" in spec:
        return "sdxl"
    if base.startswith("sd_v2") or "stable-diffusion-v2" in spec or metadata.get("ss_v2") == "True":
        return "sd2"
    if base.startswith("sd_v1") or "stable-diffusion-v1" in spec:
        return "sd1"
    return None


def _shaped_family(header: Header) -> str | None:
    tensors = header.tensors
    if "clip_g" in tensors or any(key.startswith("lora_te2_") for key in tensors):
        return "sdxl"
    for key, entry in tensors.items():
        if len(entry.shape) >= 2 and _READS_TEXT.search(key) and entry.shape[1] in _WIDTHS:
            return _WIDTHS[entry.shape[1]]
    widths = {entry.shape[-1] for entry in tensors.values() if len(entry.shape) == 2}
    if len(tensors) == 1 and len(widths) == 1:  # one table of vectors: an embedding
        return _WIDTHS.get(widths.pop())
    return None


def suggested_words(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """(tag, pictures it was trained with), the most frequent first, of `ss_tag_frequency`."""
    try:
        folders: Any = json.loads(metadata.get("ss_tag_frequency") or "{}")
    except (TypeError, ValueError, RecursionError):
        return []
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and 0 < count < MAX_COUNT and str(tag).strip():
                counts[str(tag).strip()[:200]] += count
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_SUGGESTED]


def embedding_shape(header: Header) -> tuple[int, int] | None:
    """(vectors, width of each) of an embedding; those of both text encoders count as one, as in the peer."""
    tables = [entry.shape for entry in header.tensors.values() if 1 <= len(entry.shape) <= 2]
    if not tables or len(tables) != len(header.tensors):
        return None
    rows = [(1, *shape) if len(shape) == 1 else shape for shape in tables]
    return rows[0][0], sum(shape[1] for shape in rows)
