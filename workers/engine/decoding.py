"""The queue of finished latents: decoded in small batches between ticks, so that a decode never starves the
steps. On a GPU the next steps run meanwhile, and what is decoded is taken when it is there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from atelier.contract.errors import InvalidRequest
from atelier.contract.parts import EngineSettings
from workers.engine.decode import levels
from workers.engine.handle import EnginePicture, PartRun
from workers.engine.models import Models
from workers.engine.networks_at_work import Decoding, NetworksAtWork
from workers.engine.picture import PictureRun

Outcome = tuple[PartRun, Exception | None]
"""A picture's part, and what kept the picture from becoming pixels."""


@dataclass(eq=False)
class _Waiting:
    run: PartRun
    models: Models
    picture: PictureRun
    dropped: bool = False

    @property
    def latent(self) -> torch.Tensor:
        assert self.picture.latent is not None
        return self.picture.latent

    @property
    def key(self) -> tuple[str, float, torch.Size, bool, bool, bool]:
        models, tiling, settings = self.models, self.run.part.tiling, self.run.part.settings
        finer = settings.auto_vae_precision, settings.auto_vae_precision_bfloat16
        return models.vae.id, models.checkpoint.scale_factor, self.latent.shape, tiling, *finer


@dataclass(eq=False)
class _Begun:
    batch: list[_Waiting]
    decoding: Decoding


class DecodeQueue:
    """Latents that wait to become pixels, in the order they were finished."""

    def __init__(self) -> None:
        self._queue: deque[_Waiting] = deque()
        self._begun: deque[_Begun] = deque()

    @property
    def footprint(self) -> int:
        """Bytes of working memory of what the device decodes now."""
        return max((each.picture.footprint for begun in self._begun for each in begun.batch), default=0)

    def put(self, run: PartRun, models: Models, picture: PictureRun) -> None:
        """Add a picture whose latent is there."""
        self._queue.append(_Waiting(run, models, picture))

    def drop(self, run: PartRun) -> None:
        """Forget what a part has here."""
        for each in (*self._queue, *(each for begun in self._begun for each in begun.batch)):
            each.dropped |= each.run is run
        self._queue = deque(each for each in self._queue if not each.dropped)

    def next(self, networks: NetworksAtWork, *, wait: bool) -> list[Outcome]:
        """Begin to decode the oldest pictures of one kind, and take what is decoded; with `wait` the oldest
        decode is waited for.
        """
        found = self._begin(networks)
        while self._begun and (wait or self._begun[0].decoding.ready):
            begun, wait = self._begun.popleft(), False
            found += _taken(begun, networks)
        return found

    def _begin(self, networks: NetworksAtWork) -> list[Outcome]:
        if not self._queue:
            return []
        first = self._queue[0]
        most = networks.device.decoded_together(first.latent.shape)
        batch = [each for each in self._queue if each.key == first.key][:most]
        self._queue = deque(each for each in self._queue if each not in batch)
        for each in batch:
            each.run.enter("decoding")
        try:
            self._begun.append(_Begun(batch, _decoding(batch, networks)))
        except Exception as error:  # noqa: BLE001  # a picture's failure is its part's alone
            return _failed(batch, networks, error)
        return []


def _decoding(batch: list[_Waiting], networks: NetworksAtWork) -> Decoding:
    latents, part = [each.latent for each in batch], batch[0].run.part
    finer = networks.finer(part.settings)
    return networks.decode(batch[0].models, latents, tiling=part.tiling, finer=finer, finish=levels)


def _taken(begun: _Begun, networks: NetworksAtWork) -> list[Outcome]:
    """The pixels of pictures of one kind, kept with their parts."""
    try:
        pictures, again, beyond = begun.decoding.result()
    except Exception as error:  # noqa: BLE001
        return _failed(begun.batch, networks, error)
    found: list[Outcome] = []
    for number, (each, picture) in enumerate(zip(begun.batch, pictures, strict=True)):
        if each.dropped:
            continue
        if number in again:
            each.run.warn(networks.precision_warning(networks.finer(each.run.part.settings)))
        found.append((each.run, _without_bounds(each, networks) if number in beyond else None))
        if number not in beyond:
            _keep(each, picture)
    return found


def _failed(batch: list[_Waiting], networks: NetworksAtWork, error: Exception) -> list[Outcome]:
    """A decode failed: its pictures one by one, so that only the guilty one's part fails."""
    if len(batch) == 1:
        return [] if batch[0].dropped else [(batch[0].run, error)]
    return [outcome for each in batch for outcome in _alone(each, networks)]


def _alone(waiting: _Waiting, networks: NetworksAtWork) -> list[Outcome]:
    if waiting.dropped:
        return []
    try:
        decoding = _decoding([waiting], networks)
    except Exception as error:  # noqa: BLE001
        return [(waiting.run, error)]
    return _taken(_Begun([waiting], decoding), networks)


def _without_bounds(waiting: _Waiting, networks: NetworksAtWork) -> InvalidRequest:
    """What kept a picture from being one."""
    refused = networks.finer(EngineSettings()) and networks.finer(waiting.run.part.settings) is None
    if refused and bool(torch.isfinite(waiting.latent).all()):
        return InvalidRequest(networks.precision_warning(None))
    return InvalidRequest(
        "The picture went beyond all bounds (its numbers are infinite or none). Lower what is extreme: "
        "weights in the prompt, CFG scale, options of noise or sigma. If nothing is, the checkpoint or "
        "its VAE is damaged: try another."
    )


def _keep(waiting: _Waiting, picture: torch.Tensor) -> None:
    """A picture's pixels, uint8 [H, W, 3] on the CPU, with its part."""
    part, index = waiting.run.part, waiting.picture.index
    finished = EnginePicture(
        index, picture.numpy(), part.seeds[index], part.subseeds[index], waiting.picture.complete
    )
    waiting.run.finished.append(finished)
    waiting.run.version += 1
