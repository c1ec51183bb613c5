"""One instance of an endpoint: provisioned, started, in service, and gone again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

from rehearsal.clock import SimulatedClock
from rehearsal.faults import Chance
from rehearsal.variant import Answer, Durations, Invocation, Variant, Worker

log = logging.getLogger(__name__)

NO_CAPACITY = "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
NO_PING = (
    "The primary container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


class Stage(StrEnum):
    """Where an instance is in its life."""

    PENDING = "pending"
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    GONE = "gone"


class Instance:
    """An instance and what it has in work. `changed` is called after each step of its life, under the
    clock's lock.
    """

    def __init__(
        self,
        name: str,
        variant: Variant,
        worker: Worker,
        clock: SimulatedClock,
        chance: Chance,
        durations: Durations,
        changed: Callable[[Instance], None],
    ) -> None:
        self.name = name
        self.variant = variant
        self.stage = Stage.PENDING
        self.failure = ""
        self.began = clock.now()
        self._worker = worker
        self._clock = clock
        self._chance = chance
        self._durations = durations
        self._changed = changed
        self._working: dict[str, tuple[Invocation, Callable[[Answer], None]]] = {}

    @property
    def busy(self) -> int:
        """How many requests it has in work."""
        return len(self._working)

    @property
    def runs(self) -> bool:
        """Whether it is in service."""
        return self.stage is Stage.SERVING

    @property
    def free(self) -> bool:
        """Whether it takes another request."""
        return self.stage is Stage.SERVING and self.busy < self.variant.concurrency

    def launch(self) -> None:
        """Ask for the machine. It fails where there is none."""
        self._after(self._durations.provision, self._provisioned)

    def take(self, invocation: Invocation, body: bytes, done: Callable[[Answer], None]) -> None:
        """Give the request to the worker; `done` gets its answer, once."""
        self._working[invocation.id] = (invocation, done)
        if self._chance.used("crashes"):
            self.crash()
            return
        self._worker.invoke(body, invocation.headers(), lambda answer: self._answered(invocation, answer))

    def forget(self, invocation: Invocation) -> None:
        """Nobody waits for that answer any more: its time is over."""
        self._working.pop(invocation.id, None)

    def crash(self) -> None:
        """The worker dies, its work with it; SageMaker starts the program again."""
        self._worker.crash()
        self._restart()

    def kill(self) -> None:
        """End the program on the spot, with the machine."""
        self.stage = Stage.GONE
        self._worker.crash()

    def look(self) -> None:
        """The health check of an instance in service: a program that died is started again."""
        if self.stage is Stage.SERVING and not self._worker.alive():
            self._restart()

    def leave(self) -> None:
        """Stop: running work has a short time to end, then the machine goes."""
        self.stage = Stage.LEAVING
        self._worker.stop(self._left)

    def _provisioned(self) -> None:
        if self.stage is not Stage.PENDING:
            return
        if not self._chance.instance_to_be_had():
            self._fail(NO_CAPACITY)
            return
        self._after(self._durations.image, self._start)

    def _start(self) -> None:
        if self.stage is not Stage.PENDING:
            return
        self.stage = Stage.STARTING
        self._run()

    def _run(self) -> None:
        if self._chance.used("failing_pings"):
            self._clock.after(self.variant.startup_timeout, lambda: self._unhealthy("it never answered"))
            return
        self._worker.start(self._ready)

    def _ready(self, why_not: str) -> None:
        if self.stage is not Stage.STARTING:
            return
        if why_not:
            self._unhealthy(why_not)
            return
        self._after(self._durations.start, self._serve)

    def _serve(self) -> None:
        if self.stage is Stage.STARTING:
            self.stage = Stage.SERVING
            self._changed(self)

    def _unhealthy(self, why: str) -> None:
        if self.stage is Stage.STARTING:
            log.warning("the worker of instance %s is not healthy: %s", self.name, why)
            self._worker.crash()
            self._fail(NO_PING.format(variant=self.variant.name))

    def _fail(self, reason: str) -> None:
        self.stage, self.failure = Stage.GONE, reason
        self._changed(self)

    def _restart(self) -> None:
        lost = list(self._working.values())
        self._working.clear()
        self.stage = Stage.STARTING
        for _, done in lost:
            done(Answer(0, b""))
        self._run()
        self._changed(self)

    def _answered(self, invocation: Invocation, answer: Answer) -> None:
        known = self._working.pop(invocation.id, None)
        if known is not None:
            known[1](answer)
            self._changed(self)

    def _left(self) -> None:
        lost = list(self._working.values())
        self._working.clear()
        self.stage = Stage.GONE
        for _, done in lost:
            done(Answer(0, b""))
        self._changed(self)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._clock.after(self._chance.spread(seconds), action)
