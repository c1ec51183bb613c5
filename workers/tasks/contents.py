"""What of a foreign file becomes the tensors and the metadata of its safetensors conversion, kind by kind.

Checkpoints are unwrapped from `state_dict` and lose what is no weight (optimizer, epochs, callbacks) and the
moving averages of training, as the peer reads them. Embeddings become `emb_params` [vectors, width], or
`clip_l` and `clip_g`; hypernetworks `<width>.<k|v>.<layer>` with their options as JSON.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from atelier.contract.errors import ModelUnusable
from workers.tasks.standins import StandIn, Tensor
from workers.tasks.writing import MAX_NAME

EMBEDDING_KEY = "emb_params"
HYPERNETWORK_KEY = "hypernetwork"
_WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict", "module")
"""Under what trainers put the weights, in the order in which it is looked for."""
_LEFTOVERS = ("model_ema.", "optimizer", "loss.")
_WIDTHS = (320, 640, 768, 1024, 1280, 2048)
_PAIR = ("clip_l", "clip_g")
_MAX_OPTION = 10_000
_DEPTH = 4


@dataclass(frozen=True)
class Contents:
    """The tensors to be written, and the header's metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def contents(file: str, kind: str, root: Any) -> Contents:
    """What the tree `root` of `file` holds of a model of that kind. Raises ModelUnusable, naming the file."""
    if kind == "embedding":
        return _embedding(file, root)
    if kind == "hypernetwork":
        return _hypernetwork(file, root)
    return _weights(file, root)


def entries_of(value: Any) -> dict[Any, Any]:
    """The entries of a table, or of what stands for one; empty for everything else.

    ParameterDict keeps its entries in its state: as `_parameters`, or as attributes that `_keys` names.
    """
    if type(value) is dict:
        return value
    if not isinstance(value, StandIn):
        return {}
    if value.entries:
        return value.entries
    state = value.state[-1] if type(value.state) is tuple and value.state else value.state
    if type(state) is not dict:
        return {}
    parameters = state.get("_parameters")
    return parameters if type(parameters) is dict and parameters else state


def _weights(file: str, root: Any) -> Contents:
    table = entries_of(root)
    for _ in range(_DEPTH):
        inner = next((entries_of(table[name]) for name in _WRAPPERS if entries_of(table.get(name))), None)
        if inner is None:
            break
        table = inner
    tensors = {
        _checked(file, name): value
        for name, value in table.items()
        if isinstance(value, Tensor) and type(name) is str and not name.startswith(_LEFTOVERS)
    }
    if not tensors:
        raise ModelUnusable(
            f"{file} holds no weights: nothing in it is a table of named tensors"
            f"{_described(table)}. It may be something else than a model."
        )
    return Contents(tensors, {"format": "pt"})


def _described(table: dict[Any, Any]) -> str:
    names = [name[:40] for name in table if type(name) is str][:5]
    return f" (it has {', '.join(map(repr, names))})" if names else ""


def _checked(file: str, name: str) -> str:
    try:
        fits = 0 < len(name.encode()) <= MAX_NAME and name != "__metadata__"
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ModelUnusable(f"{file} has a tensor whose name no model file can hold.")
    return name


def _embedding(file: str, root: Any) -> Contents:
    table = entries_of(root)
    vectors = _vectors(table)
    if vectors is None:
        raise ModelUnusable(
            f"{file} holds no textual inversion{_described(table)}: neither string_to_param nor one table of "
            "vectors nor clip_l with clip_g is in it.",
            detail={"reason": "no_embedding"},
        )
    for tensor in vectors.values():
        if len(tensor.shape) != 2 or not tensor.elements:
            raise ModelUnusable(f"{file} is no textual inversion: its tensor has the shape {tensor.shape}.")
    said = {name: table.get(name) for name in ("name", "step", "sd_checkpoint", "sd_checkpoint_name")}
    return Contents(vectors, {name: str(value)[:200] for name, value in said.items() if _plain(value)})


def _plain(value: Any) -> bool:
    return type(value) in (str, int) and value != ""


def _vectors(table: dict[Any, Any]) -> dict[str, Tensor] | None:
    """The vectors by the names they are stored under, None where there are none."""
    inner = entries_of(table.get("string_to_param"))
    first = next((each for each in inner.values() if isinstance(each, Tensor)), None)
    if first is not None:
        return {EMBEDDING_KEY: _rows(first)}
    pair = {name: _rows(table[name]) for name in _PAIR if isinstance(table.get(name), Tensor)}
    if len(pair) == len(_PAIR):
        return pair
    found = [each for each in table.values() if isinstance(each, Tensor)]
    return {EMBEDDING_KEY: _rows(found[0])} if len(found) == 1 else None


def _rows(tensor: Tensor) -> Tensor:
    """A single vector as a table of one."""
    if len(tensor.shape) != 1:
        return tensor
    shape, strides = (1, *tensor.shape), (tensor.shape[0] * tensor.strides[0], *tensor.strides)
    return Tensor(tensor.storage, tensor.dtype, shape, strides, tensor.offset)


def _hypernetwork(file: str, root: Any) -> Contents:
    table = entries_of(root)
    tensors: dict[str, Tensor] = {}
    for width, pair in table.items():
        if type(width) is not int:
            continue
        if width not in _WIDTHS and not 0 < width <= 8192:
            raise ModelUnusable(f"{file} is no hypernetwork: it has layers for a width of {width}.")
        if type(pair) not in (tuple, list) or len(pair) != 2:
            raise ModelUnusable(
                f"{file} is no hypernetwork: width {width} has not a part for keys and one for values."
            )
        for side, layers in zip("kv", pair, strict=True):
            named = {f"{width}.{side}.{_layer(key)}": value for key, value in entries_of(layers).items()}
            tensors |= {
                _checked(file, key): value for key, value in named.items() if isinstance(value, Tensor)
            }
    if not tensors:
        raise ModelUnusable(f"{file} holds no hypernetwork{_described(table)}: no width has layers in it.")
    options = {key: _option(value) for key, value in table.items() if type(key) is str and _optional(value)}
    return Contents(tensors, {HYPERNETWORK_KEY: json.dumps(options, sort_keys=True)})


def _layer(key: Any) -> str:
    """The oldest files call their two layers linear1 and linear2."""
    return re.sub(r"^linear([12])\.", lambda found: f"linear.{int(found[1]) - 1}.", str(key)[:MAX_NAME])


def _optional(value: Any) -> bool:
    """Whether a value is an option: a plain value or a list of them, of a sensible length."""
    if type(value) in (list, tuple):
        return len(value) <= 100 and all(type(each) in (int, float, bool, str, type(None)) for each in value)
    if type(value) is str:
        return len(value) <= _MAX_OPTION
    return type(value) in (int, bool, type(None)) or (type(value) is float and math.isfinite(value))


def _option(value: Any) -> Any:
    return list(value) if type(value) is tuple else value
