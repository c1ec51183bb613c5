"""The worker side of extensions: what their hooks give the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atelier import extension
from atelier.contract.control import Preprocessing
from atelier.contract.parts import NetworkUse


class Extensions:
    """The usable extensions of this worker. `hooks`: others than the installed ones."""

    def __init__(self, hooks: extension.Hooks | None = None) -> None:
        self._hooks = hooks or extension.installed("worker")

    def open_network(self, use: NetworkUse, path: Path) -> Any:
        """What is bound for a network of a part, None where no extension in use knows its kind."""
        return self._hooks.hook.bind(use=use, path=path)

    def open_annotator(self, how: Preprocessing, path: Path | None) -> Any:
        """What draws the maps of a preprocessor, None where no extension in use knows it."""
        return self._hooks.hook.annotator(how=how, path=path)
