"""Options of the peer as a user's own settings: which there can be, and whether values fit them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier import options
from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.ignored import HONOURED, Ignored
from atelier.resolve.passes import REFINER_PASSES
from atelier.resolve.request import picture_format
from atelier.resolve.sampling import engine_settings
from atelier.scripts.arrangement import GRID_OPTIONS, style_of

PASTING_OPTIONS = frozenset({"infotext_styles", "infotext_skip_pasting", "disable_weights_auto_swap"})
"""Options that say what pasting an infotext takes over."""
ENDPOINT = "atelier_endpoint"
"""Where a request goes that names no endpoint."""
AUTOMATIC = "automatic"
"""The endpoint that is free, and has the weights in memory, is chosen for each part."""
OWN: Mapping[str, Any] = {ENDPOINT: AUTOMATIC}
"""Options that the peer has no need of, with their defaults."""
SERVED = HONOURED | PASTING_OPTIONS | OWN.keys()
"""Options that a user can set."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "hires_fix_refiner_pass": REFINER_PASSES,
    "infotext_styles": ("Ignore", "Apply", "Discard", "Apply if any"),
}
_NETWORKS = {"sd_lora": ModelKind.LORA, "sd_hypernetwork": ModelKind.HYPERNETWORK}
_MODELS = {"sd_model_checkpoint": ModelKind.CHECKPOINT, "sd_vae": ModelKind.VAE} | _NETWORKS
_SPOKEN = {ModelKind.VAE: "VAE", ModelKind.LORA: "LoRA"}
_FORMAT = frozenset({"samples_format", "jpeg_quality", "webp_lossless", "enable_pnginfo"})
_FOLLOWS = {"sd_checkpoint_hash": "it follows from sd_model_checkpoint"}
_LONGEST_TEXT = 1_000
_LONGEST_LIST = 200
_LARGEST_NUMBER = 2**53


@dataclass(frozen=True)
class Wanted:
    """What is to be stored: option -> value, None where the default is to hold again; and what is not, with
    the reason.
    """

    changes: dict[str, Any]
    ignored: tuple[Ignored, ...] = ()


def known() -> dict[str, Any]:
    """Every option there is, with its default."""
    return dict.fromkeys(options.INFOTEXT_OPTIONS, True) | dict(options.defaults()) | dict(OWN)


def wanted(
    given: Mapping[str, Any],
    current: Mapping[str, Any],
    catalogue: Catalogue,
    inherited: Mapping[str, Any] | None = None,
) -> Wanted:
    """What becomes of the options somebody sends, who sees those of `current`. A value that already holds
    changes nothing; None gives back the value of `inherited`, which are the defaults unless given.

    Raises UnknownName for options and models there are not, InvalidRequest for a value an option cannot have,
    each naming the option; nothing is to be stored then.
    """
    _refuse_unknown(given)
    defaults = known()
    below = defaults if inherited is None else inherited
    changes: dict[str, Any] = {}
    ignored: list[Ignored] = []
    for name, value in given.items():
        if _same(value, current.get(name)):
            continue
        if name not in SERVED:
            reason = _FOLLOWS.get(name, "this option is not served here; nothing was stored")
            ignored.append(Ignored(name, reason))
            continue
        checked = None if value is None else _checked(name, value, defaults[name], catalogue)
        changes[name] = None if _same(checked, below[name]) else checked
    return Wanted(changes, tuple(ignored))


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    there_are = known()
    strange = [name for name in given if name not in there_are]
    if not strange:
        return
    near = [each for each in there_are if each[:3] == strange[0][:3]] or sorted(SERVED)
    error = UnknownName.of("option", strange[0], near)
    more = f" Unknown too: {', '.join(repr(each[:80]) for each in strange[1:9])}." if strange[1:] else ""
    raise UnknownName(f"{error.message}{more} Nothing was stored.", detail=error.detail)


def _checked(name: str, value: Any, default: Any, catalogue: Catalogue) -> Any:
    """The value as it is stored. Raises InvalidRequest and UnknownName, naming the option."""
    typed = _typed(name, value, default)
    if name in CHOICES and typed not in CHOICES[name]:
        raise _refused(name, f"it is one of {', '.join(CHOICES[name])}")
    if name in _MODELS:
        return _model(name, typed, catalogue)
    alone, nothing = {name: typed}, Txt2ImgPayload()
    try:
        engine_settings(nothing, alone)
        if name in GRID_OPTIONS:
            style_of(nothing, alone)
        if name in _FORMAT:
            picture_format(alone)
    except InvalidRequest as error:
        raise _refused(name, error.message) from error
    return typed


def _model(name: str, value: str, catalogue: Catalogue) -> str:
    """The model that the option names, as it is called in a list."""
    if value == "None" or (name == "sd_vae" and value == "Automatic"):
        return value
    kind = _MODELS[name]
    found = catalogue.find(kind, value)
    if found is None:
        names = [_listed(name, each) for each in catalogue.of_kind(kind)]
        error = UnknownName.of(_SPOKEN.get(kind, kind.value), value, names)
        raise UnknownName(f"The option {name!r} cannot be used: {error.message}", detail=error.detail)
    return _listed(name, found)


def _listed(name: str, model: ModelRef) -> str:
    if name in _NETWORKS:
        return model.name
    return model.title if name == "sd_model_checkpoint" else model.filename


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value in the type of the option's default, where that loses nothing. Raises InvalidRequest."""
    match default:
        case bool():
            fits = isinstance(value, bool)
        case int():
            fits = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
            fits = fits and abs(value) <= _LARGEST_NUMBER
            value = int(value) if fits else value
        case float():
            fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            value = float(value) if fits else value
        case list():
            fits = isinstance(value, list) and len(value) <= _LONGEST_LIST and all(map(_is_text, value))
        case _:
            fits = _is_text(value)
    if not fits:
        kinds = {bool: "true or false", int: "a whole number", float: "a number", list: "a list of texts"}
        raise _refused(name, f"{str(value)[:80]!r} is not {kinds.get(type(default), 'a text')}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _refused(name: str, reason: str) -> InvalidRequest:
    reason = reason.rstrip(".")
    return InvalidRequest(f"The option {name!r} cannot be used: {reason}.", detail={"option": name})


def _same(one: Any, other: Any) -> bool:
    """Equal, and of one kind: 1 is not true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
