"""A checkpoint with the networks of a pass: each network opened by whoever knows its kind, then merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atelier.contract.models import ModelKind
from atelier.contract.parts import NetworkUse
from workers.engine.loader.checkpoint import Checkpoint, ModelFile
from workers.engine.loader.embeddings import Embedding
from workers.engine.networks.fitting import complaints
from workers.engine.networks.hypernetwork import Hypernetwork, read_hypernetwork
from workers.engine.networks.merging import Use, merged
from workers.engine.networks.reading import Network, read_network

Bindable = Network | Hypernetwork
"""A network in host memory that can be bound to a slot."""

OpenNetwork = Callable[[NetworkUse, Path], Bindable | None]
"""Reads the file of a network that a part uses; None where nobody knows its kind. Raises ModelUnusable."""


@dataclass(frozen=True, eq=False)
class Unread:
    """In place of a network whose kind nobody here knows."""

    size: int = 0


@dataclass(frozen=True, eq=False)
class Opened:
    """A network of a part, read."""

    use: NetworkUse
    network: Bindable

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The textual inversions that came with it."""
        return self.network.embeddings if isinstance(self.network, Network) else ()


def network_id(use: NetworkUse) -> str:
    """The name of a network inside the engine: its stored object as what it is read."""
    return f"{use.model.kind}:{use.model.blob_sha256}"


def open_any(use: NetworkUse, path: Path) -> Bindable | None:
    """Every kind of network the engine knows."""
    if use.model.kind is ModelKind.LORA:
        return read_network(ModelFile(path, name=use.model.filename), network_id(use), use.model.name)
    if use.model.kind is ModelKind.HYPERNETWORK:
        return read_hypernetwork(ModelFile(path, name=use.model.filename), network_id(use), use.model.name)
    return None


def not_served(use: NetworkUse) -> str:
    """What is told of a network that nobody here can read."""
    return (
        f"{use.model.filename} was left out: this worker has no extension in use for a {use.model.kind}. "
        "atelier extensions check says why."
    )


def bound(checkpoint: Checkpoint, networks: Sequence[Opened]) -> tuple[Checkpoint, list[str]]:
    """`checkpoint` with networks in its UNet and its text encoders, each under a name of its own, and what is
    to be told of networks that do not fit it.
    """
    parts = (checkpoint.unet, *checkpoint.texts)
    linear = [(each, each.network) for each in networks if isinstance(each.network, Network)]
    told = [complaint for _, network in linear for complaint in complaints(network, parts)]
    for_unet = [Use(each.network, each.use.unet, each.use.dyn) for each in networks]
    for_text = [Use(network, each.use.te, each.use.dyn) for each, network in linear]
    texts = tuple(merged(text, for_text) for text in checkpoint.texts)
    changed = replace(checkpoint, unet=merged(checkpoint.unet, for_unet), texts=texts)
    return changed, list(dict.fromkeys(told))
