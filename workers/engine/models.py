"""The weights a part works with, in host memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from atelier.contract.errors import InvalidRequest
from atelier.contract.families import predicts_velocity
from atelier.contract.models import ModelRef
from workers.engine.controls import ReadyUnit
from workers.engine.denoise.prediction import Prediction
from workers.engine.discretisation import Discretisation, zero_terminal_snr
from workers.engine.loader import families
from workers.engine.loader.architecture import TextShape, UNetShape, VaeShape
from workers.engine.loader.checkpoint import Checkpoint, Weights
from workers.engine.loader.embeddings import Embedding
from workers.engine.memory import Footprint
from workers.engine.networks.merging import base_of

LATENT_SCALE = 8
"""Pixels of a latent pixel's side."""


@dataclass(frozen=True, eq=False)
class Models:
    """A checkpoint as a part uses it."""

    checkpoint: Checkpoint
    vae: Weights
    prediction: Prediction
    source: Checkpoint | None = None
    """The checkpoint as it was read, without networks: held so that host memory knows it is in use."""

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        vae: Weights | None,
        *,
        family: str | None = None,
        zero_snr: bool = False,
        halved: bool = False,
    ) -> Models:
        """A checkpoint with its own autoencoder or another one. `family`: what it is marked as, which decides
        what it predicts ("sd2-v": velocities); None leaves that to the file. `zero_snr`: its last noise level
        has no signal left (Lin et al. 2023). `halved`: its noise levels are those of half precision.
        """
        unet = checkpoint.unet.shape
        assert isinstance(unet, UNetShape)
        families.check_stated(
            f"The checkpoint {checkpoint.id[:10]}", family, checkpoint.family, unet.in_channels
        )
        velocity = checkpoint.v_prediction if family is None else predicts_velocity(family)
        alphas: torch.Tensor = checkpoint.alphas_cumprod
        if halved:
            alphas = alphas.half().float()
        if zero_snr or checkpoint.zero_snr:
            alphas = zero_terminal_snr(alphas)
        prediction = Prediction(Discretisation(alphas), velocity)
        return cls(checkpoint, vae or checkpoint.vae, prediction)

    @property
    def _unet(self) -> UNetShape:
        shape = self.checkpoint.unet.shape
        assert isinstance(shape, UNetShape)
        return shape

    @property
    def _vae(self) -> VaeShape:
        assert isinstance(self.vae.shape, VaeShape)
        return self.vae.shape

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self._unet.out_channels

    @property
    def extra_channels(self) -> int:
        """Channels the UNet is shown besides the latent's: 5 for inpainting models, 4 for pix2pix."""
        return self._unet.in_channels - self._unet.out_channels

    @property
    def text_widths(self) -> tuple[int, ...]:
        """Widths of the text encoders' vectors."""
        shapes = (text.shape for text in self.checkpoint.texts)
        return tuple(shape.width for shape in shapes if isinstance(shape, TextShape))

    def fits(self, embedding: Embedding) -> bool:
        """Whether the embedding has vectors for every text encoder."""
        return all(embedding.of_width(width) is not None for width in self.text_widths)

    def told(self, size: tuple[int, int], crop: tuple[int, int], score: float) -> tuple[float, ...]:
        """The numbers the UNet is told besides its prompt for a picture of `size` (width, height), cut at
        `crop` (top, left): SDXL's also where it is to end, the refiner's how good it looks (`score`).
        """
        width, height = size
        return {
            "sdxl": (height, width, *crop, height, width),
            "sdxl-refiner": (height, width, *crop, score),
        }.get(self.checkpoint.family, ())

    def takes(self, unit: ReadyUnit) -> bool:
        """Whether a ControlNet unit can act on the UNet."""
        return unit.fits(self._unet)

    @property
    def picture_channels(self) -> int:
        """Channels of a picture."""
        return self._vae.channels

    def footprint(self, itemsize: int) -> Footprint:
        """The working memory of a picture made with them."""
        return Footprint(self._unet, self._vae, itemsize)


@dataclass(frozen=True, eq=False)
class PartModels:
    """The checkpoints of a part with their networks: of its first pass, its refiner and its second pass.

    `hires_refiner` is the refiner with the second pass's networks, where these are others.
    """

    base: Models
    refiner: Models | None = None
    hires: Models | None = None
    hires_refiner: Models | None = None
    embeddings: tuple[Embedding, ...] = ()
    controls: tuple[ReadyUnit, ...] = ()
    """The ControlNet units."""
    warnings: tuple[str, ...] = ()
    """What of the networks could not be used, and why."""

    def refiner_of(self, second: bool) -> Models | None:
        """The refiner of the first or second pass."""
        return (self.hires_refiner if second else None) or self.refiner

    @property
    def second(self) -> Models:
        """The second pass's, which are the first's where it names none."""
        return self.hires or self.base

    def check_controls(self) -> None:
        """Raise InvalidRequest where a ControlNet unit cannot act on the UNet of a pass it is for."""
        for unit in self.controls:
            for models, made in ((self.base, unit.first), (self.second, unit.second)):
                if made is not None and not models.takes(unit):
                    model = unit.unit.model
                    raise InvalidRequest(
                        f"The ControlNet {model.name if model else ''} was made for checkpoints of another "
                        f"family than {models.checkpoint.family}. Choose one for {models.checkpoint.family}.",
                        detail={"unit": unit.unit.number},
                    )

    @property
    def all(self) -> tuple[Models, ...]:
        """Each of them."""
        every = (self.base, self.refiner, self.hires, self.hires_refiner)
        return tuple(each for each in every if each is not None)

    def of_unet(self, weights: str) -> Models:
        """The models whose UNet has these weights."""
        return next(each for each in self.all if each.checkpoint.unet.id == weights)

    def of_vae(self, weights: str) -> Models:
        """The models whose autoencoder has these weights."""
        return next(each for each in self.all if each.vae.id == weights)


def weights_id(ref: ModelRef) -> str:
    """The name of a model's weights inside the engine: its stored object and the configuration it is read
    with.
    """
    return f"{ref.blob_sha256}:{ref.config_sha256}" if ref.config_sha256 else ref.blob_sha256


def blob_of(weights: str) -> str:
    """The stored object that `weights_id` was made from."""
    return base_of(weights).partition(":")[0]
