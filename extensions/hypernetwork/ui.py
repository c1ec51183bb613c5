"""The cards of hypernetworks in the web UI."""

from __future__ import annotations

from typing import Any

from atelier.extension import hookimpl


@hookimpl
def controls(tab: str) -> list[dict[str, Any]]:
    """A page of cards beside the generation controls; a click on one puts `tag` into the prompt."""
    if tab not in ("txt2img", "img2img"):
        return []
    tag = "<hypernet:{name}:{multiplier}>"
    page = {"type": "cards", "title": "Hypernetworks", "kind": "hypernetwork", "tag": tag}
    return [page | {"empty": "No hypernetwork is registered yet.", "order": 20}]
