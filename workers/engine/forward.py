"""One forward of the UNet over a batch of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workers.engine import attention
from workers.engine.graphs import GraphRunner
from workers.engine.rows import Row
from workers.engine.slots import Slot


def predict(slot: Slot, rows: Sequence[Row], graphs: GraphRunner | None = None) -> list[torch.Tensor]:
    """The network's outputs ([C, H, W], float32 on the slot's device) for rows of one batch key, in their
    order; through `graphs` where the device has them. Nothing here waits for the device.
    """
    unet = slot.unet
    weight = unet.conv_in.weight
    slot.join_edges(rows[0].tiling)
    told = slot.conditions.of_filling((slot.weights, slot.filled))
    latents = torch.stack([row.shown for row in rows]).to(weight)
    latents = latents.contiguous(memory_format=torch.channels_last)
    with attention.chosen().scope():
        inputs = (latents, told.times(unet, rows), told.keys(unet, rows))
        outputs = unet(*inputs) if graphs is None else graphs.run(slot, inputs)
    return list(outputs.float().contiguous())
