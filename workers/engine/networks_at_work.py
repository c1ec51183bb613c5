"""The networks an engine works with: slots of UNets, text encoders and autoencoders, and what is remembered
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from atelier.contract.parts import EngineSettings
from workers.engine import decode, forward
from workers.engine.graphs import GraphRunner
from workers.engine.loader.architecture import UNetShape
from workers.engine.loader.embeddings import Embedding
from workers.engine.models import Models
from workers.engine.preview import LatentMap, fit
from workers.engine.rows import Context, Decode, Encode, Row
from workers.engine.slots import Slot, SlotPool
from workers.engine.text.encoder import MOST_BYTES, PromptCache, TextOptions, encode
from workers.engine.text.prompts import Encode as EncodeText


class NetworksAtWork:
    """Everything that runs a network. For the executor's thread alone. `prompt_bytes`: of encoded prompts
    that are remembered.
    """

    def __init__(
        self,
        device: str,
        dtype: torch.dtype,
        slots: int,
        graphs: GraphRunner | None = None,
        *,
        prompt_bytes: int = MOST_BYTES,
    ) -> None:
        self._device, self._dtype, self._graphs = device, dtype, graphs
        self.itemsize = dtype.itemsize
        self.unets = SlotPool(device, dtype, slots)
        self.texts = SlotPool(device, dtype, slots)
        self.vaes = SlotPool(device, dtype, slots)
        self._finer_vaes = {each: SlotPool(device, each, 1) for each in (torch.float32, torch.bfloat16)}
        self._prompts = PromptCache(prompt_bytes)
        self._maps: dict[str, LatentMap] = {}

    @property
    def size(self) -> int:
        """Bytes of all slots' weights on the device."""
        pools = (self.unets, self.texts, self.vaes, *self._finer_vaes.values())
        return sum(slot.size for pool in pools for slot in list(pool.slots))

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
            known = encode(modules, models.checkpoint.family, prompt, options, self._device)
            self._prompts.put(weights, prompt, options, known)
        return known

    def predict(self, slot: Slot, rows: Sequence[Row]) -> list[torch.Tensor]:
        """The UNet's outputs for rows of one batch key."""
        return forward.predict(slot, rows, self._graphs)

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
    ) -> tuple[torch.Tensor, list[int]]:
        """[N, 3, H, W] in -1..1 for latents of one size, and which of them were decoded a second time, in the
        format `finer`, because the engine's own could not hold their numbers. Each for itself, so that a
        picture does not depend on those beside it.
        """
        scale = models.checkpoint.scale_factor
        pictures = decode.decode(self._vae(self.vaes, models, tiling), latents, scale)
        again = decode.beyond(pictures) if finer else []
        for number in again:
            assert finer is not None
            pictures[number] = decode.decode(
                self._vae(self._finer_vaes[finer], models, tiling), [latents[number]], scale
            )[0]
        return pictures, again

    def _vae(self, pool: SlotPool, models: Models, tiling: bool) -> Slot:
        slot = pool.take(models.vae)
        slot.join_edges(tiling)
        return slot

    def between(
        self, models: Models, question: Decode | Encode, finer: torch.dtype | None
    ) -> tuple[torch.Tensor, bool]:
        """The answer to what a picture asks of an autoencoder between two passes, and whether it was found a
        second time, in the format `finer`.
        """
        if isinstance(question, Decode):
            pictures, again = self.decode(models, [question.latent], tiling=question.tiling, finer=finer)
            return pictures[0], bool(again)
        slot = self._vae(self.vaes, models, question.tiling)
        latent = decode.encode(slot, question.picture, question.scale_factor)
        if finer is None or not decode.beyond(latent[None]):
            return latent, False
        slot = self._vae(self._finer_vaes[finer], models, question.tiling)
        return decode.encode(slot, question.picture, question.scale_factor), True

    def precision_warning(self, finer: torch.dtype | None) -> str:
        """What is to be said of a part whose pictures half precision could not hold."""
        said = f"The autoencoder's numbers went beyond what {_name(self._dtype)} holds; "
        if finer is not None:
            said += f"it ran again in {_name(finer)}, which takes longer. "
        else:
            said += "the option auto_vae_precision, which has it run again in float32, is off. "
        return said + "An autoencoder made for half precision, chosen as SD VAE, avoids that."

    def preview_map(self, models: Models) -> LatentMap:
        """The linear map of the part's autoencoder."""
        known = self._maps.get(models.vae.id)
        if known is None:
            unet = models.checkpoint.unet.shape
            assert isinstance(unet, UNetShape)
            finer = self.finer(EngineSettings())
            known = fit(lambda latents: self.decode(models, latents, finer=finer)[0], unet.out_channels)
            self._maps[models.vae.id] = known
        return known


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
