"""LoRA and its relatives at work: the file becomes the engine's network, which is merged into the weights."""

from __future__ import annotations

from pathlib import Path

from atelier.contract.models import ModelKind
from atelier.contract.parts import NetworkUse
from atelier.extension import hookimpl
from workers.engine.loader.checkpoint import ModelFile
from workers.engine.networks.binding import network_id
from workers.engine.networks.reading import Network, read_network


@hookimpl
def bind(use: NetworkUse, path: Path) -> Network | None:
    """The network in the file."""
    if use.model.kind is not ModelKind.LORA:
        return None
    return read_network(ModelFile(path, name=use.model.filename), network_id(use), use.model.name)
