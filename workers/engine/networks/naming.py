"""Which module of a slot a network's file means: kohya's names (after diffusers for SD1 and SD2, after the
LDM layout for SDXL), those of the LDM layout itself, and diffusers' own.

Trainers join a module's path with "_" or leave its dots. Both read alike with every dot made a "_".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from workers.engine.loader import ldm_keys
from workers.engine.loader.architecture import TextShape, UNetShape
from workers.engine.loader.checkpoint import Weights

_UNET = ("lora_unet_", "oft_unet_", "unet_", "diffusion_model_", "model_diffusion_model_")
_TEXT = ("lora_te_", "lora_te1_", "oft_te_", "oft_te1_", "text_encoder_")
_POOLING = ("lora_te2_", "oft_te2_", "text_encoder_2_")
"""Of SDXL's second text encoder, the one that gives a pooled text as well."""
_WRAPPED = "base_model.model."


def modules_of(weights: Weights) -> dict[str, str]:
    """Flat name in a network's file -> the module's path, for every module that has a weight."""
    modules = [name.removesuffix(".weight") for name in weights.tensors if name.endswith(".weight")]
    if isinstance(weights.shape, UNetShape):
        theirs = {own: ldm for ldm, own in ldm_keys.unet_modules(weights.shape).items()}
        found = _flat(_UNET, {module: (module, _ldm(module, theirs)) for module in modules})
    else:
        pools = isinstance(weights.shape, TextShape) and weights.shape.projection > 0
        found = _flat(
            _POOLING if pools else _TEXT, {module: (module, f"text_model.{module}") for module in modules}
        )
    return found


def _flat(prefixes: Iterable[str], names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    return {
        prefix + name.replace(".", "_"): module
        for module, given in names.items()
        for name in given
        for prefix in prefixes
    }


def _ldm(module: str, theirs: Mapping[str, str]) -> str:
    """The LDM layout's path of a module: the longest of its beginnings that has a name there decides."""
    head = module
    while head and head not in theirs:
        head = head.rpartition(".")[0]
    return theirs[head] + module[len(head) :] if head else module


def flat(name: str) -> str:
    """A module's name in a file as it is looked up."""
    return name.removeprefix(_WRAPPED).replace(".", "_")
