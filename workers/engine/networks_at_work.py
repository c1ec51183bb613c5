"""The networks an engine works with: slots of UNets, text encoders and autoencoders, and what is remembered
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from atelier.contract.parts import EngineSettings
from workers.engine import decode, device, forward
from workers.engine.decode import Pixels
from workers.engine.device import Fetched
from workers.engine.graphs import GraphRunner
from workers.engine.loader.architecture import UNetShape
from workers.engine.loader.embeddings import Embedding
from workers.engine.models import Models
from workers.engine.preview import LatentMap, fit
from workers.engine.rows import Context, Decode, Encode, Row
from workers.engine.slots import Slot, SlotPool
from workers.engine.text.encoder import MOST_BYTES, PromptCache, TextOptions, encode
from workers.engine.text.prompts import Encode as EncodeText

CONTROLS = 4
"""ControlNets of one architecture that are on the device at once: as many as a picture mostly has."""


class Decoded(NamedTuple):
    """Pictures on the CPU: [N, ...]; which of them were decoded a second time, in a finer format, because the
    engine's own could not hold their numbers; and which nothing could hold.
    """

    pictures: torch.Tensor
    again: list[int]
    beyond: list[int]


class Decoding:
    """A decode under way: `begun` brings pictures and which of them are finite, `repeat` does the same for
    one of them in a finer format, where there is to be one.
    """

    def __init__(self, begun: Fetched, repeat: Callable[[int], Fetched] | None) -> None:
        self._begun, self._repeat = begun, repeat

    @property
    def ready(self) -> bool:
        """Whether the pictures are there."""
        return self._begun.ready

    def result(self) -> Decoded:
        """The pictures, waited for."""
        pictures, finite = self._begun.result()
        beyond = [number for number, held in enumerate(finite.tolist()) if not held]
        if self._repeat is None or not beyond:
            return Decoded(pictures, [], beyond)
        again, beyond = beyond, []
        for number in again:
            [picture], held = self._repeat(number).result()
            pictures[number] = picture
            if not bool(held):
                beyond.append(number)
        return Decoded(pictures, again, beyond)


def _as_it_is(pictures: torch.Tensor) -> torch.Tensor:
    return pictures


class NetworksAtWork:
    """Everything that runs a network. For the executor's thread alone. `prompt_bytes`: of encoded prompts
    that are remembered. For `channels_last` see `networks.empty`.
    """

    def __init__(
        self,
        name: str,
        dtype: torch.dtype,
        slots: int,
        graphs: GraphRunner | None = None,
        *,
        prompt_bytes: int = MOST_BYTES,
        channels_last: bool = False,
    ) -> None:
        self.device = device.of(name)
        self._dtype, self._graphs = dtype, graphs
        self.itemsize = dtype.itemsize
        self.unets = SlotPool(name, dtype, slots, channels_last=channels_last)
        self.controls = SlotPool(name, dtype, max(slots, CONTROLS), channels_last=channels_last)
        self.texts = SlotPool(name, dtype, slots)
        self.vaes = SlotPool(name, dtype, slots, channels_last=channels_last)
        self._finer_vaes = {
            each: SlotPool(name, each, 1, channels_last=channels_last)
            for each in (torch.float32, torch.bfloat16)
        }
        self._prompts = PromptCache(prompt_bytes)
        self._maps: dict[str, LatentMap] = {}

    @property
    def size(self) -> int:
        """Bytes on the device: all slots' weights, and the recordings."""
        pools = (self.unets, self.controls, self.texts, self.vaes, *self._finer_vaes.values())
        return sum(slot.size for pool in pools for slot in list(pool.slots)) + self.recorded

    @property
    def recorded(self) -> int:
        """Bytes that recorded forwards hold beside the weights, which no picture can have."""
        return 0 if self._graphs is None else self._graphs.size

    def choices(self, models: Mapping[str, Models]) -> tuple[dict[str, Sequence[Slot]], dict[str, bool]]:
        """For the weights that are asked for: the UNet slots of their architecture, and whether another may
        be made.
        """
        shapes = {weights: each.checkpoint.unet.shape for weights, each in models.items()}
        slots: dict[str, Sequence[Slot]] = {
            weights: self.unets.of_shape(shape) for weights, shape in shapes.items()
        }
        return slots, {weights: self.unets.has_room(shape) for weights, shape in shapes.items()}

    def encoder(
        self, settings: EngineSettings, embeddings: Sequence[Embedding], models: Models
    ) -> EncodeText:
        """What encodes texts for a picture made with `models` under `settings`. On the executor's thread,
        when an evaluation needs them.
        """
        fitting = tuple(each for each in embeddings if models.fits(each))
        options = TextOptions(
            settings.clip_skip,
            settings.sdxl_clip_l_skip,
            settings.emphasis,
            settings.comma_padding_backtrack,
            settings.use_old_emphasis_implementation,
            fitting,
        )
        return partial(self._context, models, options)

    def _context(self, models: Models, options: TextOptions, prompt: str) -> Context:
        texts = models.checkpoint.texts
        weights = "|".join(text.id for text in texts)
        known = self._prompts.get(weights, prompt, options)
        if known is None:
            modules = [self.texts.take(text).module for text in texts]
            known = encode(modules, models.checkpoint.family, prompt, options, self.device.upload)
            self._prompts.put(weights, prompt, options, known)
        return known

    def predict(self, slot: Slot, rows: Sequence[Row]) -> list[torch.Tensor]:
        """The UNet's outputs for rows of one batch key."""
        return forward.predict(slot, rows, self._graphs, forward.residuals(rows, self.controls.take))

    def improve(self, busy: Callable[[], bool]) -> None:
        """Use time nobody needs to make what is asked for often faster; little of it while `busy`."""
        if self._graphs is not None:
            self._graphs.improve(busy)

    def finer(self, settings: EngineSettings) -> torch.dtype | None:
        """The number format in which an autoencoder runs again where the engine's own cannot hold its
        numbers, as the peer's options auto_vae_precision say; None for no second time.
        """
        if self.itemsize >= torch.float32.itemsize:
            return None
        if settings.auto_vae_precision_bfloat16 and self._dtype is not torch.bfloat16:
            return torch.bfloat16
        return torch.float32 if settings.auto_vae_precision else None

    def decode(
        self,
        models: Models,
        latents: Sequence[torch.Tensor],
        *,
        tiling: bool = False,
        finer: torch.dtype | None = None,
        finish: Callable[[torch.Tensor], torch.Tensor] = _as_it_is,
    ) -> Decoding:
        """Begin to decode latents of one size: what comes of it is what `finish` makes of [N, 3, H, W] in
        -1..1, on the device. What the engine's own format cannot hold is decoded in the format `finer`
        instead, each picture for itself, so that it does not depend on those beside it.
        """

        def begun(pool: SlotPool, some: Sequence[torch.Tensor]) -> Fetched:
            with self.device.beside(*some):
                slot = self._vae(pool, models, tiling)
                pictures = decode.decode(slot, some, models.checkpoint.scale_factor)
                return self.device.fetch(finish(pictures), decode.finite(pictures))

        repeat: Callable[[int], Fetched] | None = None
        if finer is not None:
            second = self._finer_vaes[finer]

            def again(number: int) -> Fetched:
                return begun(second, [latents[number]])

            repeat = again
        return Decoding(begun(self.vaes, latents), repeat)

    def _vae(self, pool: SlotPool, models: Models, tiling: bool) -> Slot:
        slot = pool.take(models.vae)
        slot.join_edges(tiling)
        return slot

    def between(
        self, models: Models, question: Decode | Encode, finer: torch.dtype | None
    ) -> tuple[torch.Tensor, bool]:
        """The answer to what a picture asks of an autoencoder between two passes, and whether it was found a
        second time, in the format `finer`. A picture is on the CPU, a latent on the device. The answer is
        waited for.
        """
        if isinstance(question, Decode):
            asked = [question.latent]
            found = self.decode(models, asked, tiling=question.tiling, finer=finer).result()
            return found.pictures[0], bool(found.again)

        def begun(pool: SlotPool) -> Fetched:
            with self.device.beside():
                slot, picture = self._vae(pool, models, question.tiling), self.device.upload(question.picture)
                latent = decode.encode(slot, picture, question.scale_factor)
                return self.device.fetch(latent, decode.finite(latent[None]))

        latent, finite = begun(self.vaes).result()
        again = finer is not None and not bool(finite)
        if finer is not None and again:
            latent, _ = begun(self._finer_vaes[finer]).result()
        return self.device.upload(latent), again

    def precision_warning(self, finer: torch.dtype | None) -> str:
        """What is to be said of a part whose pictures half precision could not hold."""
        said = f"The autoencoder's numbers went beyond what {_name(self._dtype)} holds; "
        if finer is not None:
            said += f"it ran again in {_name(finer)}, which takes longer. "
        else:
            said += "the option auto_vae_precision, which has it run again in float32, is off. "
        return said + "An autoencoder made for half precision, chosen as SD VAE, avoids that."

    def preview_map(self, models: Models) -> Callable[[torch.Tensor], Pixels]:
        """The linear map of the part's autoencoder, for a latent on the device. To be called from any thread:
        only that one waits for the latent.
        """
        known = self._maps.get(models.vae.id)
        if known is None:
            unet = models.checkpoint.unet.shape
            assert isinstance(unet, UNetShape)
            known = fit(partial(self._pictures, models), unet.out_channels)
            self._maps[models.vae.id] = known
        return partial(self._previewed, known)

    def _pictures(self, models: Models, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        asked = [self.device.upload(each) for each in latents]
        return self.decode(models, asked, finer=self.finer(EngineSettings())).result().pictures

    def _previewed(self, convert: LatentMap, latent: torch.Tensor) -> Pixels:
        [fetched] = self.device.fetch(latent).result()
        return convert(fetched)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
