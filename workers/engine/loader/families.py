"""The families of checkpoints as the loader knows them: where their text encoders are, and how their latents
are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

from atelier import modelfile
from atelier.contract import families
from atelier.contract.errors import ModelUnusable
from workers.engine.loader.sidecar import SD1_SCALE_FACTOR, SDXL_SCALE_FACTOR


@dataclass(frozen=True)
class TextPlace:
    """A text encoder in a file: the prefix of its tensors, whether they are named as OpenCLIP does, and
    whether its pooled text is used.
    """

    prefix: str
    open_clip: bool = False
    pools: bool = False


@dataclass(frozen=True)
class Family:
    """A family: its text encoders in the order in which their outputs are joined; how many numbers its UNet
    is told besides the pooled text.
    """

    texts: tuple[TextPlace, ...]
    scale_factor: float = SD1_SCALE_FACTOR
    numbers: int = 0


FAMILIES = {
    "sd1": Family((TextPlace("cond_stage_model.transformer."),)),
    "sd2": Family((TextPlace("cond_stage_model.model.", open_clip=True),)),
    "sdxl": Family(
        (
            TextPlace("conditioner.embedders.0.transformer."),
            TextPlace("conditioner.embedders.1.model.", open_clip=True, pools=True),
        ),
        SDXL_SCALE_FACTOR,
        numbers=6,
    ),
    "sdxl-refiner": Family(
        (TextPlace("conditioner.embedders.0.model.", open_clip=True, pools=True),),
        SDXL_SCALE_FACTOR,
        numbers=5,
    ),
}
"""By the base of the family, as `atelier.modelfile.base_family` tells it."""


def check_stated(file: str, stated: str | None, base: str, channels: int) -> None:
    """ModelUnusable where a family was stated for a file whose tensors are of another: of another `base`, or
    of a UNet that sees other `channels`. "-v" is believed.
    """
    found = base + modelfile.variant_of_channels(channels)
    if stated is not None and families.contradicts(stated, found):
        raise ModelUnusable(
            f"{file} is marked as {stated}, but its tensors are those of {found}. Correct the model's "
            "family, or leave it to be told by the file."
        )
