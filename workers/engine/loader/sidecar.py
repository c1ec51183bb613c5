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
_MOST_HEADS, _MOST_TIMESTEPS = 1_000, 10_000
_MERGE = "tag:yaml.org,2002:merge"


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


class _Loader(yaml.SafeLoader):
    """Plain values without merges: a few lines of those unfold to more than any memory holds."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse what would be merged."""
        if any(key.tag == _MERGE for key, _ in node.value):
            raise yaml.YAMLError("it merges tables (<<), which no configuration of a model does")


def _loaded(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _positive(value: Any) -> int | None:
    """The projects write -1 where another setting decides."""
    return _whole(value, 1, _MOST_HEADS) if value and int(value) > 0 else None


def _whole(value: Any, low: int, high: int) -> int:
    if not low <= int(value) <= high:
        raise ValueError(f"a number in it is not from {low:,} to {high:,}")
    return int(value)


def _below(value: Any, most: float) -> float:
    """A number above 0 and below `most`. Raises ValueError."""
    if not 0.0 < float(value) < most:
        raise ValueError(f"a number in it is not between 0 and {most:g}")
    return float(value)


def read(text: str | None, file: str) -> Sidecar:
    """The settings in `text`, nothing stated where there is none. `file` names it in errors."""
    if text is None:
        return Sidecar()
    try:
        params = _section(_loaded(text), "model", "params")
        unet = _section(params, "unet_config", "params") or _section(params, "network_config", "params")
        text_encoder = _section(params, "cond_stage_config", "params")
        scale = params.get("scale_factor")
        return Sidecar(
            scale_factor=None if scale is None else _below(scale, 100.0),
            unet_heads=_positive(unet.get("num_heads")),
            unet_head_width=_positive(unet.get("num_head_channels")),
            text_heads=_positive(text_encoder.get("num_attention_heads", text_encoder.get("heads"))),
            linear_start=_below(params.get("linear_start", 0.00085), 1.0),
            linear_end=_below(params.get("linear_end", 0.0120), 1.0),
            timesteps=_whole(params.get("timesteps", 1000), 2, _MOST_TIMESTEPS),
        )
    except (yaml.YAMLError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelUnusable(f"The configuration beside {file} cannot be read: {error}") from error
