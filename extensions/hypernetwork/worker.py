"""Hypernetworks at work: the file becomes the engine's hypernetwork, which stands before the attentions."""

from __future__ import annotations

from pathlib import Path

from atelier.contract.models import ModelKind
from atelier.contract.parts import NetworkUse
from atelier.extension import hookimpl
from workers.engine.loader.checkpoint import ModelFile
from workers.engine.networks.binding import network_id
from workers.engine.networks.hypernetwork import Hypernetwork, read_hypernetwork


@hookimpl
def bind(use: NetworkUse, path: Path) -> Hypernetwork | None:
    """The hypernetwork in the file."""
    if use.model.kind is not ModelKind.HYPERNETWORK:
        return None
    return read_hypernetwork(ModelFile(path, name=use.model.filename), network_id(use), use.model.name)
