"""What a GPU's driver says of it, and what is said where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from atelier.contract.parts import GpuState
from workers.runtime.gpu_figures import LIBRARY, Gpu


class Driver:
    """NVML as its reference describes it: structures are filled, 0 is success."""

    def __init__(self, *, fails: str = "") -> None:
        self._fails = fails

    def _status(self, name: str) -> int:
        return 999 if name == self._fails else 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self._status("init")

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 1000 + index
        return self._status("handle")

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        assert handle.value == 1000
        memory._obj.total, memory._obj.free, memory._obj.used = 24 * 2**30, 18 * 2**30, 6 * 2**30
        return self._status("memory")

    def nvmlDeviceGetUtilizationRates(self, handle: Any, busy: Any) -> int:  # noqa: N802
        busy._obj.gpu, busy._obj.memory = 87, 40
        return self._status("busy")


def test_the_driver_says_how_full_and_how_busy_the_gpu_is() -> None:
    asked: list[str] = []

    def load(name: str) -> Driver:
        asked.append(name)
        return Driver()

    gpu = Gpu.found(load)
    assert gpu is not None
    assert gpu.read() == GpuState(memory_used=6 * 2**30, memory_total=24 * 2**30, busy=87)
    assert asked == [LIBRARY]


@pytest.mark.parametrize("fails", ["init", "handle", "memory", "busy"])
def test_what_the_driver_does_not_say_is_not_made_up(fails: str) -> None:
    gpu = Gpu.found(lambda _: Driver(fails=fails))
    assert gpu is None or gpu.read() is None


def test_where_there_is_no_driver_there_is_no_gpu() -> None:
    def load(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    assert Gpu.found(load) is None
    assert Gpu.found(lambda _: object()) is None
