"""Extra-network tags of a prompt: what the extensions make of them, and which networks a pass uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier import extension
from atelier.contract.models import Catalogue
from atelier.contract.parts import NetworkUse
from atelier.extension import Hooks
from atelier.prompt import networks

_ADDED = {"sd_hypernetwork": "hypernet", "sd_lora": "lora"}
"""Option that names a network to add to every prompt -> the tag it is added as."""


@dataclass(frozen=True)
class Tags:
    """The networks that a prompt's tags name, and what is to be told of tags without one."""

    networks: tuple[NetworkUse, ...] = ()
    warnings: tuple[str, ...] = ()


def read(
    prompt: str,
    catalogue: Catalogue,
    effective: Mapping[str, Any],
    hooks: Hooks | None = None,
) -> Tags:
    """The networks of a pass with this prompt, those its options add among them. `hooks`: the extensions in
    use, the installed ones where None.
    """
    hooks = hooks or extension.installed("schema")
    found = [(kind, list(arguments)) for kind, arguments in networks.extract(prompt)[1]]
    found += _added(found, catalogue, effective)
    uses: list[NetworkUse] = []
    warnings: list[str] = []
    for kind, arguments in found:
        meaning = hooks.hook.parse_tag(kind=kind, arguments=arguments, catalogue=catalogue)
        if meaning is None:
            told = f"<{kind}:{':'.join(arguments)[:80]}> was left out: no extension in use knows this tag."
            warnings.append(told)
            continue
        warnings += meaning.warnings
        uses += [meaning.use] if meaning.use else []
    return Tags(tuple(uses), tuple(dict.fromkeys(warnings)))


def _added(
    found: list[tuple[str, list[str]]], catalogue: Catalogue, effective: Mapping[str, Any]
) -> list[tuple[str, list[str]]]:
    """Tags for the networks that options add to every prompt which does not name them itself."""
    mentioned = {(kind, arguments[0]) for kind, arguments in found}
    strength = str(effective.get("extra_networks_default_multiplier") or 1.0)
    return [
        (kind, [str(effective[option]), strength])
        for option, kind in _ADDED.items()
        if effective.get(option) not in (None, "", "None") and (kind, effective[option]) not in mentioned
    ]
