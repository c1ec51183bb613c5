"""What a GPU says of itself, from the driver's own library (NVML): how much of its memory is taken and how
busy it is. No package is needed for it, and where there is no driver there is nothing to read.

Functions and structures: NVIDIA's NVML API reference, nvmlDeviceGetMemoryInfo and
nvmlDeviceGetUtilizationRates.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from atelier.contract.parts import GpuState

LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class Gpu:
    """The first GPU of the machine."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def found(cls, load: Callable[[str], Any] = ctypes.CDLL) -> Gpu | None:
        """The GPU; None where there is no driver, or no GPU behind it."""
        try:
            library = load(LIBRARY)
            handle = ctypes.c_void_p()
            if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
                return None
        except (OSError, AttributeError):
            return None
        return cls(library, handle)

    def read(self) -> GpuState | None:
        """How it is now; None where the driver does not say."""
        memory, busy = _Memory(), _Utilisation()
        if self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)):
            return None
        if self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(busy)):
            return None
        return GpuState(memory_used=memory.used, memory_total=memory.total, busy=busy.gpu)
