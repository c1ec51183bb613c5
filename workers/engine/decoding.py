"""The queue of finished latents: decoded in small batches between ticks, so that a decode never starves the
steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from atelier.contract.errors import InvalidRequest
from atelier.contract.parts import EngineSettings
from workers.engine.decode import to_pixels
from workers.engine.handle import EnginePicture, PartRun
from workers.engine.models import Models
from workers.engine.networks_at_work import NetworksAtWork
from workers.engine.picture import PictureRun

_BATCH = 2
"""Pictures of one decode: on a CPU more do not go faster, on a GPU the decoder fills it with one."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    run: PartRun
    models: Models
    picture: PictureRun

    @property
    def key(self) -> tuple[str, float, torch.Size, bool, bool, bool]:
        assert self.picture.latent is not None
        models, tiling, settings = self.models, self.run.part.tiling, self.run.part.settings
        finer = settings.auto_vae_precision, settings.auto_vae_precision_bfloat16
        return models.vae.id, models.checkpoint.scale_factor, self.picture.latent.shape, tiling, *finer


class DecodeQueue:
    """Latents that wait to become pixels, in the order they were finished."""

    def __init__(self) -> None:
        self._queue: deque[_Waiting] = deque()

    def put(self, run: PartRun, models: Models, picture: PictureRun) -> None:
        """Add a picture whose latent is there."""
        self._queue.append(_Waiting(run, models, picture))

    def drop(self, run: PartRun) -> None:
        """Forget what a part has here."""
        self._queue = deque(each for each in self._queue if each.run is not run)

    def next(self, networks: NetworksAtWork) -> list[tuple[PartRun, Exception | None]]:
        """Decode the oldest pictures of one kind: the part of each, and what kept it from becoming pixels."""
        if not self._queue:
            return []
        batch = [each for each in self._queue if each.key == self._queue[0].key][:_BATCH]
        self._queue = deque(each for each in self._queue if each not in batch)
        for each in batch:
            each.run.enter("decoding")
        try:
            _decode(batch, networks)
        except Exception as error:  # noqa: BLE001  # a picture's failure is its part's alone
            if len(batch) == 1:
                return [(batch[0].run, error)]
            return [self._alone(each, networks) for each in batch]
        return [(each.run, None) for each in batch]

    def _alone(self, waiting: _Waiting, networks: NetworksAtWork) -> tuple[PartRun, Exception | None]:
        try:
            _decode([waiting], networks)
        except Exception as error:  # noqa: BLE001
            return waiting.run, error
        return waiting.run, None


def _decode(batch: list[_Waiting], networks: NetworksAtWork) -> None:
    """The pixels of pictures of one kind, kept with their parts."""
    latents = [each.picture.latent for each in batch if each.picture.latent is not None]
    part = batch[0].run.part
    finer = networks.finer(part.settings)
    pictures, again = networks.decode(batch[0].models, latents, tiling=part.tiling, finer=finer)
    for number in again:
        batch[number].run.warn(networks.precision_warning(finer))
    if not bool(torch.isfinite(pictures).all()):
        whole = all(bool(torch.isfinite(each).all()) for each in latents)
        if whole and finer is None and networks.finer(EngineSettings()):
            raise InvalidRequest(networks.precision_warning(None))
        raise InvalidRequest(
            "The picture went beyond all bounds (its numbers are infinite or none). Lower what is extreme: "
            "weights in the prompt, CFG scale, options of noise or sigma. If nothing is, the checkpoint or "
            "its VAE is damaged: try another."
        )
    for each, picture in zip(batch, pictures, strict=True):
        part, index = each.run.part, each.picture.index
        pixels = to_pixels(picture)
        finished = EnginePicture(
            index, pixels, part.seeds[index], part.subseeds[index], each.picture.complete
        )
        each.run.finished.append(finished)
        each.run.version += 1
