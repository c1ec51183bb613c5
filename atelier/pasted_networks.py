"""Networks and embeddings that an infotext names: which files of the studio they are, by their hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.ignored import Ignored
from atelier.infotext import networks
from atelier.infotext.networks import Names

NETWORK_HASHES: Mapping[str, ModelKind] = MappingProxyType(
    {
        networks.LORAS: ModelKind.LORA,
        networks.EMBEDDINGS: ModelKind.EMBEDDING,
        networks.HYPERNETWORKS: ModelKind.HYPERNETWORK,
    }
)
"""Entry of an infotext -> the kind of the files it gives hashes of."""
_LENGTHS = (8, 10, 12, 64)
"""Digits that texts of various programs give."""
_MOST_TOLD = 20


def named_by_hash(catalogue: Catalogue | None, kind: ModelKind) -> Names:
    """What the files of a kind are called here, by their hashes: kohya's where they have one, and that of the
    whole file.
    """
    models = catalogue.of_kind(kind) if catalogue is not None else []
    owners = Counter(name for each in models for name in _names(each))
    found: dict[str, tuple[str, ...]] = {}
    for each in models:
        names = (each.name, *(name for name in sorted(_names(each)) if owners[name] == 1))
        for digest in filter(None, (each.addnet_hash, each.sha256)):
            for length in _LENGTHS:
                found.setdefault(digest[:length].lower(), names)
    return found


def told(parsed: Mapping[str, object], catalogue: Catalogue | None) -> list[Ignored]:
    """What is to be said of the files in a parsed infotext's hashes that are not here: another file has the
    name, or none.
    """
    if catalogue is None:
        return []
    found: list[Ignored] = []
    for label, kind in NETWORK_HASHES.items():
        if label not in parsed:
            continue
        here = named_by_hash(catalogue, kind)
        names = {name for each in catalogue.of_kind(kind) for name in _names(each)}
        for name, digest in networks.hashes(str(parsed[label])).items():
            if digest in here:
                continue
            other = "the file of that name here is another one"
            reason = other if name in names else "no file here has that hash"
            found.append(Ignored(f"infotext.{label}", f"{name[:80]} ({digest[:12]}): {reason}"))
    return found[:_MOST_TOLD]


def _names(model: ModelRef) -> set[str]:
    return {model.name, model.filename.rsplit(".", 1)[0], *filter(None, (model.alias,))}
