"""Extra-network tags `<name:argument:...>`: found and removed before the text is encoded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_TAG = re.compile(r"<(\w+):([^>]+)>")
_SAME_AS = {"lyco": "lora"}


@dataclass(frozen=True)
class NetworkTag:
    """A tag with its arguments read. `te` and `unet`: how strongly the network acts on the text encoder and
    on the UNet; `dyn`: the rank it is cut to, None for all of it; `warning`: what could not be read, or "".
    """

    kind: str
    name: str
    te: float = 1.0
    unet: float = 1.0
    dyn: int | None = None
    warning: str = ""


def extract(text: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """(text without tags, [(kind, arguments)]): `<lora:x:0.5>` gives ("lora", ["x", "0.5"]). Never raises."""
    found: list[tuple[str, list[str]]] = []

    def take(match: re.Match[str]) -> str:
        found.append((match[1], match[2].split(":")))
        return ""

    # Behind the last ">" no tag can end: searching there would cost the square of its length.
    end = text.rfind(">") + 1
    return _TAG.sub(take, text[:end]) + text[end:], found


def tag(kind: str, arguments: Sequence[str]) -> NetworkTag:
    """The arguments `name:te:unet:dyn` of a tag, the last three also as `te=`, `unet=`, `dyn=`. Never raises.

    A missing weight is 1, a missing `unet` is `te`; `lyco` is another name of `lora`. What cannot be read is
    taken as missing and told in `warning`.
    """
    name, *rest = arguments or [""]
    faults: list[str] = []
    named = [each.partition("=") for each in rest if "=" in each]
    given = dict(zip(("te", "unet", "dyn"), (each for each in rest if "=" not in each), strict=False))
    for key, _, value in named:
        if key.strip() in ("te", "unet", "dyn"):
            given[key.strip()] = value
        else:
            faults.append(f"{key.strip()[:40]!r} is no argument of a network")
    te = _number(given, "te", faults)
    unet = _number(given, "unet", faults)
    dyn = _number(given, "dyn", faults)
    if dyn is not None and (dyn < 1 or dyn != int(dyn)):
        faults.append(f"dyn={given['dyn'][:40]!r} is no rank")
        dyn = None
    strength = 1.0 if te is None else te
    return NetworkTag(
        kind=_SAME_AS.get(kind, kind),
        name=name,
        te=strength,
        unet=strength if unet is None else unet,
        dyn=None if dyn is None else int(dyn),
        warning=f"<{kind}:{name[:80]}>: {'; '.join(faults)}; left out." if faults else "",
    )


def written(kind: str, name: str, *numbers: float) -> str:
    """The tag `<kind:name:number:...>`. Raises ValueError for a name that ends a tag."""
    if {":", ">"} & set(name):
        raise ValueError(f"{name!r} cannot be named in a tag: ':' and '>' end it. Rename it.")
    return f"<{':'.join([kind, name, *(f'{each:g}' for each in numbers)])}>"


def _number(given: dict[str, str], key: str, faults: list[str]) -> float | None:
    """The finite number given as `key`; None without one, with a fault if there was something else."""
    if key not in given:
        return None
    try:
        number = float(given[key])
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    faults.append(f"{key}={given[key][:40]!r} is no number")
    return None
