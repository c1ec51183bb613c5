"""Reading a model file into host memory: tensors under the networks' own names, checked to be complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from atelier import modelfile
from atelier.contract.errors import ModelUnusable
from workers.engine.loader import ldm_keys, networks, openclip, sidecar, weightfile
from workers.engine.loader.architecture import (
    TIME_WIDTH,
    Shapes,
    TextShape,
    UNetShape,
    infer_text,
    infer_unet,
    infer_vae,
)
from workers.engine.loader.families import FAMILIES, Family, TextPlace

Tensors = dict[str, torch.Tensor]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
_SCHEDULE = "alphas_cumprod"
_NOT_WEIGHTS = ("position_ids", "logit_scale", "attn_mask")
_VAE_TRAINING = ("loss.", "model_ema.")


@dataclass(frozen=True)
class ModelFile:
    """A model file that lies on this machine, and the text of the configuration that came beside it. `name`:
    what people call the file; stored files go by their hashes. `source`: its bytes where they lie elsewhere;
    `path` is then a place where they may come to lie.
    """

    path: Path
    config: str | None = None
    name: str = ""
    source: weightfile.Source | None = None

    @property
    def bytes(self) -> weightfile.Source:
        """The file's bytes."""
        return self.source or weightfile.FileSource(self.path)

    @property
    def called(self) -> str:
        """The file's name in messages."""
        return self.name or self.path.name


@dataclass(frozen=True, eq=False)
class Weights:
    """One network's tensors in host memory. `id` names them; `shape` is the architecture that can hold
    them.
    """

    id: str
    shape: networks.Shape
    tensors: Tensors

    @property
    def size(self) -> int:
        """Bytes in host memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint in host memory: its networks and how they were trained. `family`: its base family;
    `texts`: its text encoders in the order of their outputs.
    """

    id: str
    family: str
    unet: Weights
    vae: Weights
    texts: tuple[Weights, ...]
    scale_factor: float
    v_prediction: bool
    zero_snr: bool
    """Trained to the point where nothing is left of the picture."""
    alphas_cumprod: torch.Tensor = field(repr=False)
    """[timesteps], float32: the signal's share of each timestep's variance."""

    @property
    def text(self) -> Weights:
        """The first text encoder."""
        return self.texts[0]

    @property
    def size(self) -> int:
        """Bytes in host memory."""
        return self.unet.size + self.vae.size + sum(text.size for text in self.texts)


def without(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def shapes(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def check(
    file: str, network: str, given: Tensors, wanted: Mapping[str, torch.Size], unknown: Iterable[str]
) -> None:
    """Every tensor of the network is there in its shape, and nothing else is: else ModelUnusable names the
    first that is wrong.
    """
    missing = sorted(wanted.keys() - given.keys())
    if missing:
        raise ModelUnusable(f"{file} lacks {len(missing)} tensors of its {network}, first {missing[0]!r}.")
    surplus = sorted([*unknown, *(given.keys() - wanted.keys())])
    if surplus:
        raise ModelUnusable(
            f"{file} has {len(surplus)} tensors its {network} does not know, first {surplus[0]!r}."
        )
    for key, shape in wanted.items():
        if given[key].shape != shape:
            raise ModelUnusable(
                f"{file}: {key!r} of the {network} has shape {tuple(given[key].shape)}, not {tuple(shape)}."
            )


def expected(file: str, network: str, shape: networks.Shape) -> dict[str, torch.Size]:
    """Names and shapes of the network's tensors. Raises ModelUnusable for sizes that no network can have."""
    try:
        return networks.expected(shape)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        why = str(error).split("\n", 1)[0][:200]
        raise ModelUnusable(f"{file} has a {network} of sizes that do not go together: {why}.") from error


def renamed(tensors: Tensors, modules: dict[str, str]) -> tuple[Tensors, list[str]]:
    named = {key: ldm_keys.rename(key, modules) for key in tensors}
    return {own: tensors[key] for key, own in named.items() if own}, [
        key for key, own in named.items() if not own
    ]


def _unet(file: str, weights_id: str, tensors: Tensors, config: sidecar.Sidecar) -> Weights:
    shape = infer_unet(shapes(tensors), file, heads=config.unet_heads, head_width=config.unet_head_width)
    own, unknown = renamed(tensors, ldm_keys.unet_modules(shape))
    check(file, "UNet", own, expected(file, "UNet", shape), unknown)
    return Weights(weights_id, shape, own)


def _vae(file: str, weights_id: str, tensors: Tensors) -> Weights:
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(_VAE_TRAINING)}
    shape = infer_vae(shapes(kept), file)
    own, unknown = renamed(kept, ldm_keys.vae_modules(shape))
    wanted = expected(file, "autoencoder", shape)
    squeezed = {
        key: t[..., 0, 0] if t.ndim == 4 and key in wanted and len(wanted[key]) == 2 else t
        for key, t in own.items()
    }
    check(file, "autoencoder", squeezed, wanted, unknown)
    return Weights(weights_id, shape, squeezed)


def _text(file: str, weights_id: str, tensors: Tensors, place: TextPlace, heads: int | None) -> Weights:
    kept = {key: tensor for key, tensor in tensors.items() if not key.endswith(_NOT_WEIGHTS)}
    if place.open_clip:
        own, unknown = openclip.to_own(kept)
    else:
        # older files lack the level `text_model.`
        own, unknown = {key.removeprefix("text_model."): tensor for key, tensor in kept.items()}, []
    if not place.pools:
        own.pop("text_projection.weight", None)
    shape = infer_text(shapes(own), file, heads=heads, open_clip=place.open_clip, pools=place.pools)
    check(file, "text encoder", own, expected(file, "text encoder", shape), unknown)
    return Weights(weights_id, shape, own)


def _texts(file: str, weights_id: str, tensors: Tensors, family: Family, heads: int | None) -> list[Weights]:
    """The text encoders; each is a set of weights with a name of its own."""
    return [
        _text(
            file,
            f"{weights_id}:te{number}" if number else weights_id,
            without(place.prefix, tensors),
            place,
            heads,
        )
        for number, place in enumerate(family.texts)
    ]


def _check_conditions(file: str, base: str, unet: UNetShape, texts: list[Weights]) -> None:
    """The UNet is told what the text encoders and the family give: else ModelUnusable."""
    shapes = [text.shape for text in texts if isinstance(text.shape, TextShape)]
    told = sum(shape.projection for shape in shapes) + FAMILIES[base].numbers * TIME_WIDTH
    width = sum(shape.width for shape in shapes)
    if unet.context != width:
        raise ModelUnusable(
            f"{file} has a UNet that attends to vectors {unet.context} wide, and text encoders that "
            f"give {width}."
        )
    if unet.added != told:
        raise ModelUnusable(
            f"{file} has a UNet that is told {unet.added} numbers besides its prompt; those of {base} "
            f"are told {told}. Image-conditioned variants (unCLIP) cannot be used."
        )


def linear_alphas(config: sidecar.Sidecar) -> torch.Tensor:
    """[timesteps] cumulative product of 1 - beta for betas whose roots are spaced evenly (the LDM project's
    "linear").
    """
    roots = torch.linspace(
        config.linear_start**0.5, config.linear_end**0.5, config.timesteps, dtype=torch.float64
    )
    return torch.cumprod(1.0 - roots**2, dim=0).float()


def _stored_alphas(stored: torch.Tensor | None) -> torch.Tensor | None:
    """A schedule as float32 [timesteps], None where the file has none or none that falls from below 1 to 0:
    whoever makes all numbers of a file shorter may round it away.
    """
    if stored is None or stored.ndim != 1 or len(stored) < 2 or not stored.is_floating_point():
        return None
    alphas = stored.float().clone()
    falls = bool((alphas.diff() <= 0).all())
    return alphas if falls and 0.5 < float(alphas[0]) < 1.0 and float(alphas[-1]) >= 0.0 else None


def read_checkpoint(model: ModelFile, weights_id: str, *, pinned: bool = False) -> Checkpoint:
    """The checkpoint in `model`, or ModelUnusable. `weights_id` names its weights from here on. Moving
    averages and what training left in the file are not read.
    """
    file = model.called
    config = sidecar.read(model.config, file)
    base = modelfile.base_family(weightfile.header_of(model.bytes).tensors)
    if base is None:
        raise ModelUnusable(
            f"{file} holds no text encoder of a Stable Diffusion checkpoint (SD1, SD2, SDXL or its refiner)."
        )
    kind = FAMILIES[base]
    prefixes = (UNET, VAE, _SCHEDULE, *(place.prefix for place in kind.texts))
    tensors, header = weightfile.read(model.bytes, lambda key: key.startswith(prefixes), pinned=pinned)
    unet = _unet(file, weights_id, without(UNET, tensors), config)
    texts = _texts(file, weights_id, tensors, kind, config.text_heads)
    assert isinstance(unet.shape, UNetShape)
    _check_conditions(file, base, unet.shape, texts)
    alphas = _stored_alphas(tensors.get(_SCHEDULE))
    return Checkpoint(
        id=weights_id,
        family=base,
        unet=unet,
        vae=_vae(file, weights_id, without(VAE, tensors)),
        texts=tuple(texts),
        scale_factor=kind.scale_factor if config.scale_factor is None else config.scale_factor,
        zero_snr="ztsnr" in header.tensors,
        v_prediction=modelfile.predicts_velocity(header, model.config),
        alphas_cumprod=linear_alphas(config) if alphas is None else alphas,
    )


def read_vae(model: ModelFile, weights_id: str, *, pinned: bool = False) -> Weights:
    """The autoencoder in a file of its own (bare LDM names, or those of a whole checkpoint)."""
    names = weightfile.header_of(model.bytes).tensors
    prefix = VAE if any(name.startswith(VAE) for name in names) else ""
    tensors, _ = weightfile.read(model.bytes, lambda key: key.startswith(prefix), pinned=pinned)
    return _vae(model.called, weights_id, without(prefix, tensors))
