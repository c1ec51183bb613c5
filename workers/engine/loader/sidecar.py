"""The configuration that may come beside a checkpoint (a same-stem .yaml of the LDM project): what the
tensors cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from atelier.contract.errors import ModelUnusable

SD1_SCALE_FACTOR = 0.18215
SDXL_SCALE_FACTOR = 0.13025


@dataclass(frozen=True)
class Sidecar:
    """scale_factor: latents are the autoencoder's times this. None where the file says nothing: then the
    tensors decide.
    """

    scale_factor: float | None = None
    unet_heads: int | None = None
    unet_head_width: int | None = None
    text_heads: int | None = None
    linear_start: float = 0.00085
    linear_end: float = 0.0120
    timesteps: int = 1000


def _section(of: Any, *path: str) -> dict[str, Any]:
    for name in path:
        of = of.get(name) if isinstance(of, dict) else None
    return of if isinstance(of, dict) else {}


def _positive(value: Any) -> int | None:
    """The projects write -1 where another setting decides."""
    return int(value) if value and int(value) > 0 else None


def read(text: str | None, file: str) -> Sidecar:
    """The settings in `text`, nothing stated where there is none. `file` names it in errors."""
    if text is None:
        return Sidecar()
    try:
        params = _section(yaml.safe_load(text), "model", "params")
        unet = _section(params, "unet_config", "params") or _section(params, "network_config", "params")
        text_encoder = _section(params, "cond_stage_config", "params")
        scale = params.get("scale_factor")
        return Sidecar(
            scale_factor=None if scale is None else float(scale),
            unet_heads=_positive(unet.get("num_heads")),
            unet_head_width=_positive(unet.get("num_head_channels")),
            text_heads=_positive(text_encoder.get("num_attention_heads", text_encoder.get("heads"))),
            linear_start=float(params.get("linear_start", 0.00085)),
            linear_end=float(params.get("linear_end", 0.0120)),
            timesteps=int(params.get("timesteps", 1000)),
        )
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ModelUnusable(f"The configuration beside {file} cannot be read: {error}") from error
