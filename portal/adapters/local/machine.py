"""What this machine has to run workers on: its processors, its memory, and NVIDIA's GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

from portal.services.ports import InstanceType

ASK_SECONDS = 10.0
GPU_SLOTS = 16


@cache
def offers() -> tuple[InstanceType, ...]:
    """Kinds of workers: with one thread, with half of them and with all; with a GPU where there is one."""
    cores, memory = processors(), memory_bytes()
    kinds = []
    for threads in sorted({1, max(1, cores // 2), cores}):
        said = f"{threads} of this machine's {cores} processor threads"
        kinds.append(InstanceType(f"cpu-{threads}", said, threads, memory))
    gpus = _gpus()
    if gpus:
        name, size = gpus[0]
        said = f"a GPU of this machine ({name}), shared by its workers" if len(gpus) == 1 else name
        kinds.append(InstanceType("gpu", said, max(1, cores // 2), memory, "cuda", name, size, GPU_SLOTS))
    return tuple(kinds)


def processors() -> int:
    """Processor threads this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> list[tuple[str, int]]:
    """Name and memory in bytes of each GPU that NVIDIA's driver knows."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line.rpartition(",") for line in told.splitlines() if "," in line]
    return [(name.strip(), int(size) * 2**20) for name, _, size in lines if size.strip().isdigit()]
