"""A device that is always behind, made of CPU tensors: what it brings to the host is there only once it has
been waited for, and rubbish before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from workers.engine.device import QueuedDevice

RUBBISH = 77
LOOKS = 2
"""How often one looks in vain before the device gets there by itself."""


class Queue:
    """What has been asked of one queue and is not done; `log` tells what it was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left: deque[Callable[[], None]] = deque()
        self.log: list[str] = []
        self.asked = self.done = 0

    def ask(self, work: Callable[[], None]) -> None:
        """One thing more to do."""
        self.left.append(work)
        self.asked += 1

    def work_to(self, place: int) -> None:
        """Do everything up to a place."""
        while self.done < place:
            self.left.popleft()()
            self.done += 1


class Place:
    """A place in a queue; see Signal."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._place, self._looks = queue, queue.asked, 0
        self.waited = False

    def query(self) -> bool:
        """Not there yet, but for those who look often."""
        self._looks += 1
        if self._looks > LOOKS:
            self._queue.work_to(self._place)
        return self._queue.done >= self._place and self._looks > LOOKS

    def synchronize(self) -> None:
        """Work up to here."""
        self._queue.work_to(self._place)
        self.waited = True


class Late:
    """A driver whose copies to the host are done when somebody waits for them."""

    def __init__(self) -> None:
        self._main = Queue("main")
        self.queues = [self._main]
        self.places: list[Place] = []
        self.held: list[tuple[int, str]] = []
        """(address of a tensor, name of the queue that uses it, too)"""
        self._of_thread = threading.local()

    def queue(self) -> Queue:
        """See Driver."""
        self.queues.append(Queue(f"queue {len(self.queues)}"))
        return self.queues[-1]

    def current(self) -> Queue:
        """See Driver."""
        found: Queue = getattr(self._of_thread, "queue", self._main)
        return found

    @contextmanager
    def within(self, queue: Queue) -> Iterator[None]:
        """See Driver."""
        before, self._of_thread.queue = self.current(), queue
        yield
        self._of_thread.queue = before

    def follow(self, queue: Queue, other: Queue) -> None:
        """See Driver."""
        queue.log.append(f"after {other.name}")

    def signal(self, queue: Queue) -> Place:
        """See Driver."""
        self.places.append(Place(queue))
        return self.places[-1]

    def locked(self, like: torch.Tensor) -> torch.Tensor:
        """See Driver."""
        made = torch.full_like(like, RUBBISH).as_subclass(_Locked)
        made.driver = self
        return made

    def hold(self, tensor: torch.Tensor, queue: Queue) -> None:
        """See Driver."""
        self.held.append((tensor.data_ptr(), queue.name))


class _Locked(torch.Tensor):
    """Page-locked memory: a copy into it that nobody waits for is done later."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    driver: Late

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> Any:
        """See torch.Tensor."""
        copy = super().copy_
        if not non_blocking:
            return copy(source)
        queue = self.driver.current()
        assert (source.data_ptr(), queue.name) in self.driver.held, "its memory may be another's by then"
        queue.ask(lambda: copy(source))
        return self


def late_device() -> tuple[QueuedDevice, Late]:
    """A device that is always behind, and its driver."""
    driver = Late()
    return QueuedDevice(torch.device("cpu"), driver), driver
