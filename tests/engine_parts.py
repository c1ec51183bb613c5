"""Parts for the engine's tests: ordinary values that a test changes where it wants to."""

from __future__ import annotations

from typing import Any

from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import EngineSettings, ResolvedPart


def reference(name: str, kind: ModelKind = ModelKind.CHECKPOINT) -> ModelRef:
    """A model of that name, whose hash is made of the name."""
    digest = name.encode().hex().ljust(64, "0")
    return ModelRef(
        kind=kind,
        name=name,
        filename=f"{name}.safetensors",
        sha256=digest,
        blob_sha256=digest,
        size=1,
        short_hash=digest[:10],
    )


def part(name: str = "one", **changes: Any) -> ResolvedPart:
    """A picture of 64 x 64 pixels in four steps with the checkpoint of that name."""
    plain: dict[str, Any] = {
        "checkpoint": reference(name),
        "prompt": "a red circle",
        "negative_prompt": "",
        "sampler": "Euler",
        "scheduler": "Automatic",
        "steps": 4,
        "cfg_scale": 5.0,
        "width": 64,
        "height": 64,
        "seeds": (1,),
        "subseeds": (0,),
        "settings": EngineSettings(randn_source="CPU"),
    }
    return ResolvedPart.model_validate(plain | changes)
