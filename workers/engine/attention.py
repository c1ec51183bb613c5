"""How attention is computed: one choice for the process, by what was asked for and what the machine can do.

All choices compute the same function; they differ in speed and in the last bits. PyTorch's own
`scaled_dot_product_attention` is the default and picks its kernel by itself; on a GPU its kernels can be
named, and xformers can stand in its place.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from atelier.contract.acceleration import Attention

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(queries, keys, values), each [N, heads, length, width] -> [N, heads, length, width]."""

_AMPERE, _HOPPER = (8, 0), (9, 0)
_REST = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""What follows a kernel that was named, for head widths and types it does not take."""
_KERNELS = {
    "flash": [SDPBackend.FLASH_ATTENTION, *_REST[1:]],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, *_REST],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}
NAMES: tuple[Attention, ...] = get_args(Attention)
"""What may be asked for. "auto": cuDNN's kernels first on Hopper and later, else PyTorch's own choice."""


@dataclass(frozen=True)
class Machine:
    """What decides which kernels can run: the device, the compute capability of a GPU, the number format,
    whether PyTorch was built with cuDNN's attention, and whether xformers can be imported.
    """

    device: str = "cpu"
    capability: tuple[int, int] | None = None
    half: bool = False
    cudnn: bool = False
    xformers: bool = False

    @classmethod
    def of(cls, device: str, dtype: torch.dtype) -> Machine:
        """This machine, as networks of `dtype` on `device` see it."""
        cuda = device.startswith("cuda")
        return cls(
            device=device,
            capability=torch.cuda.get_device_capability(device) if cuda else None,
            half=dtype in (torch.float16, torch.bfloat16),
            cudnn=cuda and torch.backends.cudnn.is_available(),
            xformers=importlib.util.find_spec("xformers") is not None,
        )

    def lacks(self, name: str) -> str | None:
        """Why attention by that name cannot be had here; None where it can."""
        if name in ("auto", "sdpa", "math"):
            return None
        if self.capability is None:
            return "it needs a CUDA device"
        if name == "xformers":
            return None if self.xformers else "the package xformers is not installed"
        if name == "efficient":
            return None
        if not self.half:
            return "it needs float16 or bfloat16"
        if self.capability < _AMPERE:
            has = ".".join(map(str, self.capability))
            return f"it needs compute capability 8.0, and this GPU has {has}"
        return "PyTorch has no cuDNN here" if name == "cudnn" and not self.cudnn else None


@dataclass(frozen=True)
class Choice:
    """How attention is computed from now on. `note` says why it is not what was asked for."""

    name: str
    attend: Attend = F.scaled_dot_product_attention
    kernels: tuple[SDPBackend, ...] = ()
    note: str | None = None

    def scope(self) -> AbstractContextManager[Any]:
        """What the forwards run in: PyTorch's kernels in the order that was chosen."""
        return sdpa_kernel(list(self.kernels), set_priority=True) if self.kernels else nullcontext()


def choose(asked: str, machine: Machine) -> Choice:
    """The choice for what was asked (one of NAMES); what cannot be had falls back to PyTorch's own."""
    lacks = machine.lacks(asked)
    if lacks is not None:
        return Choice("sdpa", note=f"Attention by {asked} is not to be had: {lacks}. PyTorch's own is used.")
    if asked == "xformers":
        return _xformers()
    if asked == "auto":
        modern = machine.capability is not None and machine.capability >= _HOPPER
        asked = "cudnn" if modern and machine.lacks("cudnn") is None else "sdpa"
    return Choice(asked, kernels=tuple(_KERNELS.get(asked, ())))


def _xformers() -> Choice:
    try:
        ops = importlib.import_module("xformers.ops")
    except Exception as error:  # noqa: BLE001  # a build for another torch fails in many ways
        note = f"xformers is installed and cannot be used with this PyTorch: {error}."
        return Choice("sdpa", note=f"{note} PyTorch's own attention is used.")

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        # xformers wants [N, length, heads, width]
        turned = (each.transpose(1, 2) for each in (query, key, value))
        out: torch.Tensor = ops.memory_efficient_attention(*turned)
        return out.transpose(1, 2)

    return Choice("xformers", attend)


class _Process:
    """The choice that holds for the process."""

    choice = Choice("sdpa")


def use(choice: Choice) -> None:
    """Compute attention this way from now on."""
    _Process.choice = choice


def chosen() -> Choice:
    """How attention is computed now."""
    return _Process.choice


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention as it was chosen; see Attend."""
    return _Process.choice.attend(query, key, value)
