"""What a model file is, by the names and shapes of its tensors: so that no file serves as what it is not."""

from __future__ import annotations

import re
from collections.abc import Callable

from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelKind
from atelier.modelfile import UNET_PREFIX, Header

_NETWORK = re.compile(
    r"(^|\.)(lora_(up|down|mid|A|B)|lora\.(up|down)|lora_linear_layer\.(up|down)|hada_w[12]_[ab]|hada_t[12]"
    r"|lokr_w[12](_[ab])?|lokr_t2|oft_blocks|oft_diag|dora_scale|on_input|w_norm|diff|diff_b)(\.|$)"
    r"|^(lora|oft)_(unet|te\d?|prior)_|^bundle_emb\."
)
_HYPERNETWORK = re.compile(r"\d+\.[kv]\.\S+")
_CONTROL = (
    "control_model.",
    "input_hint_block.",
    "controlnet_cond_embedding.",
    "lora_controlnet",
    "adapter.body.",
)
_VAE = ("first_stage_model.", "decoder.up.", "decoder.up_blocks.", "decoder.conv_in.", "decoder.mid.")
_UPSCALER = re.compile(
    r"^(model\.\d+\.(sub\.|weight)|conv_first\.|body\.\d+\.rdb1|RRDB_trunk\.|layers\.\d+\.residual_group)"
)
_EMBEDDING = ("emb_params", "clip_l", "clip_g")
_ARTICLES = {
    ModelKind.CHECKPOINT: "a checkpoint", ModelKind.VAE: "a VAE",
    ModelKind.LORA: "a LoRA or one of its relatives",
    ModelKind.EMBEDDING: "a textual inversion", ModelKind.HYPERNETWORK: "a hypernetwork",
    ModelKind.CONTROLNET: "a ControlNet", ModelKind.UPSCALER: "an upscaler",
    ModelKind.ANNOTATOR: "an annotator",
}  # fmt: skip


def likely(header: Header) -> ModelKind | None:
    """The kind that the file's tensors speak for; None where they are like nothing that is known."""
    return next((kind for kind, is_one in _SIGNS if is_one(header)), None)


def check(file: str, header: Header, kind: ModelKind) -> None:
    """Raise ModelUnusable, naming the file and its likely kind, where it is plainly not of `kind`."""
    if not header.tensors:
        raise ModelUnusable(f"{file} holds no tensors: it is no model. It may have been saved empty.")
    found = likely(header)
    if found is None:
        if kind in (ModelKind.EMBEDDING, ModelKind.HYPERNETWORK) and not _one_table(header):
            raise ModelUnusable(f"{file} is not {_ARTICLES[kind]}: its tensors are like no such file's.")
        return
    if found is kind or (kind is ModelKind.VAE and _has(header, _VAE)):
        return
    raise ModelUnusable(
        f"{file} is not {_ARTICLES[kind]}: by its tensors it is {_ARTICLES[found]}. Give its kind as "
        f"{found.value}, or put it into the folder of that kind.",
        detail={"likely_kind": found.value},
    )


def _has(header: Header, beginnings: tuple[str, ...]) -> bool:
    return any(name.startswith(beginnings) for name in header.tensors)


def _is_control(header: Header) -> bool:
    return _has(header, _CONTROL)


def _is_checkpoint(header: Header) -> bool:
    return _has(header, (UNET_PREFIX,))


def _is_network(header: Header) -> bool:
    return any(_NETWORK.search(name) for name in header.tensors)


def _is_hypernetwork(header: Header) -> bool:
    return bool(header.tensors) and all(_HYPERNETWORK.fullmatch(name) for name in header.tensors)


def _is_embedding(header: Header) -> bool:
    return bool(header.tensors) and all(name in _EMBEDDING for name in header.tensors)


def _is_vae(header: Header) -> bool:
    return _has(header, _VAE)


def _is_upscaler(header: Header) -> bool:
    return any(_UPSCALER.match(name) for name in header.tensors)


def _is_annotator(header: Header) -> bool:
    """Published edge detectors (HED) have these names."""
    return "block1.convs.0.weight" in header.tensors and "block1.projection.weight" in header.tensors


def _one_table(header: Header) -> bool:
    """One tensor of vectors, under whatever name: how the library stores a textual inversion."""
    return len(header.tensors) == 1 and all(1 <= len(each.shape) <= 2 for each in header.tensors.values())


_SIGNS: tuple[tuple[ModelKind, Callable[[Header], bool]], ...] = (
    (ModelKind.CONTROLNET, _is_control),
    (ModelKind.ANNOTATOR, _is_annotator),
    (ModelKind.CHECKPOINT, _is_checkpoint),
    (ModelKind.LORA, _is_network),
    (ModelKind.EMBEDDING, _is_embedding),
    (ModelKind.HYPERNETWORK, _is_hypernetwork),
    (ModelKind.VAE, _is_vae),
    (ModelKind.UPSCALER, _is_upscaler),
)
"""In the order in which they are asked: a ControlNet has a checkpoint's names too."""
