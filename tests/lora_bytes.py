"""A network of two tensors as a file's bytes: safetensors, other numbers, and a pickle of it."""

from __future__ import annotations

import torch
from safetensors.torch import save

from tests.pickling import program, tensor, text, zipped

UP, DOWN = "lora_unet_x.lora_up.weight", "lora_unet_x.lora_down.weight"
LORA = save({UP: torch.ones(2, 1), DOWN: torch.ones(1, 2)})
OTHER = save({UP: torch.zeros(2, 1), DOWN: torch.ones(1, 2)})
PICKLED = zipped(
    program(
        b"}"
        + text(UP)
        + tensor("0", 2, (2, 1), (1, 1))
        + b"s"
        + text(DOWN)
        + tensor("0", 2, (1, 2), (2, 1))
        + b"s"
    ),
    {"0": bytes(8)},
)
