"""One forward of the UNet over a batch of rows, and of the ControlNets before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from workers.engine import attention
from workers.engine.graphs import GraphRunner
from workers.engine.loader.checkpoint import Weights
from workers.engine.rows import Control, Row
from workers.engine.slots import Slot


def predict(
    slot: Slot,
    rows: Sequence[Row],
    graphs: GraphRunner | None = None,
    control: Sequence[torch.Tensor] = (),
) -> list[torch.Tensor]:
    """The network's outputs ([C, H, W], float32 on the slot's device) for rows of one batch key, in their
    order; through `graphs` where the device has them. `control` is what `residuals` gave for the rows.
    Nothing here waits for the device.
    """
    unet = slot.unet
    weight = unet.conv_in.weight
    slot.join_edges(rows[0].tiling)
    told = slot.conditions.of_filling((slot.weights, slot.filled))
    latents = torch.stack([row.shown for row in rows]).to(weight)
    latents = latents.contiguous(memory_format=torch.channels_last)
    with attention.chosen().scope():
        inputs = (latents, told.times(unet, rows), told.keys(unet, rows))
        outputs = unet(*inputs, control) if graphs is None or control else graphs.run(slot, inputs)
    return list(outputs.float().contiguous())


def residuals(rows: Sequence[Row], take: Callable[[Weights], Slot]) -> list[torch.Tensor]:
    """What ControlNets add to the UNet's blocks for rows of one batch key: [N, C, h, w] each, zero for rows
    without any; an empty list where no row has one. Rows with the same ControlNet share its forward; `take`
    gives the slot that holds its weights.
    """
    groups: dict[str, list[tuple[int, Control]]] = {}
    for number, row in enumerate(rows):
        for control in row.controls:
            groups.setdefault(control.network.id, []).append((number, control))
    total: list[torch.Tensor] = []
    for members in groups.values():
        found = _outputs(take(members[0][1].network), rows, members)
        if not total:
            total = [each.new_zeros((len(rows), *each.shape[1:])) for each in found]
        for into, each in zip(total, found, strict=True):
            for (number, _), output in zip(members, each, strict=True):
                into[number] += output
    return total


def _outputs(slot: Slot, rows: Sequence[Row], members: Sequence[tuple[int, Control]]) -> list[torch.Tensor]:
    """The outputs of one ControlNet for its members (row's number, control), by their strengths."""
    network, asked = slot.control, [rows[number] for number, _ in members]
    weight = network.conv_in.weight
    told = slot.conditions.of_filling((slot.weights, slot.filled))
    latents = torch.stack([row.latent for row in asked]).to(weight)
    latents = latents.contiguous(memory_format=torch.channels_last)
    hints = torch.stack([told.hint(network, control.hint) for _, control in members])
    with attention.chosen().scope():
        found = network(latents, told.times(network, asked), told.keys(network, asked), hints)
    return [_scaled(each, members, place) for place, each in enumerate(found)]


def _scaled(output: torch.Tensor, members: Sequence[tuple[int, Control]], place: int) -> torch.Tensor:
    """Output number `place` [N, C, h, w], each member's by its own strength."""
    # strengths go to the device with the commands: a copy of them would make the host wait
    strong = [each * control.scales[place] for each, (_, control) in zip(output, members, strict=True)]
    return torch.stack(
        [
            each.mean((1, 2), keepdim=True).expand_as(each) if control.pooled else each
            for each, (_, control) in zip(strong, members, strict=True)
        ]
    )
