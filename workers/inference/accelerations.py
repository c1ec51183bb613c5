"""What makes a worker faster here and what cannot, for whoever looks after it."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version

import torch

from workers.engine import attention

_COMPILER = "It serves PyTorch's compiler; a worker's networks run no kernel of it by themselves"
_TRAINING = "It speeds up training; a worker that makes pictures has no use for it"
OTHERS = {"triton": _COMPILER, "accelerate": _TRAINING, "deepspeed": _TRAINING}
"""Packages that are asked for as accelerations, and what they are to this worker."""


def machine(device: str, dtype: str) -> attention.Machine:
    """What a worker with these settings ("auto" decided) computes on."""
    number: torch.dtype = getattr(torch, dtype)
    return attention.Machine.of(device, number)


def report(asked: str, device: str, dtype: str) -> str:
    """Every option with whether it can be had here and, where not, why; and what `asked` leads to."""
    here = machine(device, dtype)
    chosen = attention.choose(asked, here)
    lines = [
        f"device: {device}, {dtype}",
        f"attention: {chosen.name} (ATELIER_ATTENTION={asked})",
        "",
        "ATELIER_ATTENTION may be:",
    ]
    for name in attention.NAMES:
        choice = attention.choose(name, here)
        lines.append(f"  {name:<10}{choice.note or _granted(name, choice)}")
    lines += ["", "Other packages:"]
    lines += [f"  {name:<12}{_installed(name)}. {use}." for name, use in OTHERS.items()]
    return "\n".join(lines)


def _granted(name: str, choice: attention.Choice) -> str:
    return "can be had" if choice.name == name else f"can be had; means {choice.name} here"


def _installed(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return "not installed"
    try:
        return f"installed, version {version(package)}"
    except PackageNotFoundError:
        return "installed"
