"""Where an engine computes, and how its thread keeps up with it.

A CPU computes as it is asked: there is nothing to wait for. A GPU works through queues (CUDA streams) behind
the engine's thread, which must not wait at every step: latents, noise and samplers' states stay on the
device, what goes up or comes down does so from page-locked memory, the autoencoder has a queue of its own
beside the UNet's, and the thread stays a few forwards ahead of the device, no more.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch

AHEAD = 2
"""Forwards that may be asked for before the oldest of them is done. With two the device always has one to
begin; more would only let a picture that joins, or an action, wait behind them.
"""
_MOST_PIXELS = 1 << 20
_MOST_PICTURES = 8
"""Of one decode on a GPU: what a picture of 1024 x 1024 takes, and at most so many."""
_MOST_ELEMENTS = 8192
"""Of a channel, over all rows of a forward on a processor: two rows of 512 x 512 pixels. They took two cores
1.1 s with the demo checkpoint.
"""


class Signal(Protocol):
    """A place in a queue."""

    def query(self) -> bool:
        """Whether the device has passed it."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has."""
        ...


class Driver(Protocol):
    """The queues of one device. A queue is whatever the driver says it is."""

    def queue(self) -> Any:
        """A new queue."""
        ...

    def current(self) -> Any:
        """The queue that takes what the calling thread asks for."""
        ...

    def within(self, queue: Any) -> AbstractContextManager[Any]:
        """Let `queue` take what the calling thread asks for."""
        ...

    def follow(self, queue: Any, other: Any) -> None:
        """Let what comes into `queue` from here on wait for what is in `other` now."""
        ...

    def signal(self, queue: Any) -> Signal:
        """The place behind what is in `queue` now."""
        ...

    def locked(self, like: torch.Tensor) -> torch.Tensor:
        """Page-locked host memory for a tensor of that shape, type and layout."""
        ...

    def hold(self, tensor: torch.Tensor, queue: Any) -> None:
        """`queue` uses `tensor`, too: once let go, its memory waits for what is in that queue then."""
        ...


class Fetched:
    """Tensors on their way to the host. `ready`: whether `result` would return at once."""

    def __init__(self, tensors: Sequence[torch.Tensor], arrived: Signal | None = None) -> None:
        self._tensors, self._arrived = tensors, arrived

    @property
    def ready(self) -> bool:
        """Whether they are there."""
        return self._arrived is None or self._arrived.query()

    def result(self) -> Sequence[torch.Tensor]:
        """The tensors on the CPU, waited for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensors


class Device:
    """A device that has computed what it is asked for when the call returns: the CPU."""

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the host on the device."""
        return tensor

    def fetch(self, *tensors: torch.Tensor) -> Fetched:
        """Tensors of the device for the host. May be called from any thread."""
        return Fetched(tensors)

    def beside(self, *tensors: torch.Tensor) -> AbstractContextManager[None]:
        """What is asked for within does not hold the UNet's work up. It begins when `tensors`, which it uses,
        are there.
        """
        return nullcontext()

    def keep_pace(self) -> None:
        """Wait until the device is at most AHEAD calls of this behind."""

    def decoded_together(self, latent: torch.Size) -> int:
        """How many pictures of a latent's size [C, h, w] one decode takes; more do not go faster."""
        return 2

    def rows_together(self, height: int, width: int) -> int:
        """How many rows of latents of height x width a forward has room for. Nothing stops a forward once it
        runs, and large rows fill a processor one by one: few of them let a click be heeded soon.
        """
        return max(1, _MOST_ELEMENTS // (height * width))


class QueuedDevice(Device):
    """A device that works behind its callers, through the queues of a driver."""

    def __init__(self, where: torch.device, driver: Driver) -> None:
        self._where, self._driver = where, driver
        self._second, self._downward = driver.queue(), driver.queue()
        self._marks: deque[Signal] = deque()

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """See Device. Nobody waits: the copy is one more thing in the current queue."""
        return self._driver.locked(tensor).copy_(tensor).to(self._where, non_blocking=True)

    def fetch(self, *tensors: torch.Tensor) -> Fetched:
        """See Device. Copied in a queue of its own, so that what is queued later need not wait for it."""
        driver = self._driver
        driver.follow(self._downward, driver.current())
        with driver.within(self._downward):
            for each in tensors:
                driver.hold(each, self._downward)
            host = [driver.locked(each).copy_(each, non_blocking=True) for each in tensors]
            return Fetched(host, driver.signal(self._downward))

    @contextmanager
    def _beside(self, tensors: Sequence[torch.Tensor]) -> Iterator[None]:
        driver = self._driver
        driver.follow(self._second, driver.current())
        with driver.within(self._second):
            for each in tensors:
                driver.hold(each, self._second)
            yield

    def beside(self, *tensors: torch.Tensor) -> AbstractContextManager[None]:
        """See Device."""
        return self._beside(tensors)

    def keep_pace(self) -> None:
        """See Device."""
        self._marks.append(self._driver.signal(self._driver.current()))
        if len(self._marks) > AHEAD:
            self._marks.popleft().synchronize()

    def decoded_together(self, latent: torch.Size) -> int:
        """See Device."""
        pixels = latent[-1] * latent[-2] * 64
        return min(max(_MOST_PIXELS // pixels, 1), _MOST_PICTURES)

    def rows_together(self, height: int, width: int) -> int:
        """See Device. Its forwards are short."""
        return sys.maxsize


class CudaStreams:
    """CUDA's streams as a driver's queues."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def queue(self) -> torch.cuda.Stream:
        """See Driver."""
        return torch.cuda.Stream(self._device)

    def current(self) -> torch.cuda.Stream:
        """See Driver. Every thread begins with the device's default stream: that is the UNet's."""
        return torch.cuda.current_stream(self._device)

    def within(self, queue: torch.cuda.Stream) -> AbstractContextManager[Any]:
        """See Driver."""
        return torch.cuda.stream(queue)

    def follow(self, queue: torch.cuda.Stream, other: torch.cuda.Stream) -> None:
        """See Driver."""
        queue.wait_stream(other)

    def signal(self, queue: torch.cuda.Stream) -> torch.cuda.Event:
        """See Driver. Whoever waits for it sleeps."""
        event = torch.cuda.Event(blocking=True)
        event.record(queue)
        return event

    def locked(self, like: torch.Tensor) -> torch.Tensor:
        """See Driver."""
        return torch.empty_like(like, device="cpu", pin_memory=True)

    def hold(self, tensor: torch.Tensor, queue: torch.cuda.Stream) -> None:
        """See Driver."""
        tensor.record_stream(queue)


def of(name: str) -> Device:
    """The device of that name."""
    where = torch.device(name)
    return QueuedDevice(where, CudaStreams(where)) if where.type == "cuda" else Device()


def settle(where: torch.device) -> None:
    """Wait for what the calling thread has asked of a device."""
    if where.type == "cuda":
        torch.cuda.current_stream(where).synchronize()
