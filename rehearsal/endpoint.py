"""An endpoint: its life cycle, its instances, and the requests that wait for them."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from rehearsal.clock import SimulatedClock
from rehearsal.faults import Chance
from rehearsal.instance import Instance, Stage
from rehearsal.refusals import Refused
from rehearsal.variant import Answer, Durations, Invocation, Variant, Worker

log = logging.getLogger(__name__)

_UP = (Stage.PENDING, Stage.STARTING, Stage.SERVING)


class Surroundings(Protocol):
    """What an endpoint needs of the account it is in."""

    def open_worker(self, endpoint: str, instance: str, variant: Variant) -> Worker:
        """A worker that was not started."""
        ...

    def quota_left(self) -> int | None:
        """How many more instances the account may have, None for any number."""
        ...

    def read(self, uri: str) -> bytes:
        """An object's bytes. Raises LookupError."""
        ...

    def finished(self, endpoint: Endpoint, invocation: Invocation, answer: Answer, reason: str) -> None:
        """Store the answer and tell of it; `reason` is a sentence where it failed."""
        ...


class Endpoint:
    """Everything under the clock's lock. `status` is one of SageMaker's words."""

    def __init__(
        self,
        name: str,
        variant: Variant,
        around: Surroundings,
        clock: SimulatedClock,
        chance: Chance,
        durations: Durations,
    ) -> None:
        self.name = name
        self.variant = variant
        self.status = "Creating"
        self.reason = ""
        self.wanted = variant.count
        self.created = self.modified = clock.now()
        self.waiting: deque[Invocation] = deque()
        self.instances: list[Instance] = []
        self._around = around
        self._clock = clock
        self._chance = chance
        self._durations = durations
        self._numbers = itertools.count(1)
        self._successor: Variant | None = None
        self._deleted: Callable[[], None] = lambda: None

    @property
    def serving(self) -> int:
        """Instances in service (CurrentInstanceCount)."""
        return sum(each.stage is Stage.SERVING for each in self.instances)

    @property
    def running(self) -> int:
        """Machines that cost money."""
        return sum(each.stage is not Stage.GONE for each in self.instances)

    @property
    def busy(self) -> int:
        """Requests that workers have."""
        return sum(each.busy for each in self.instances)

    def create(self) -> None:
        """Begin with the variant's first count of instances."""
        self._launch(self.wanted, self.variant)

    def resize(self, count: int) -> None:
        """Another number of instances. Raises Refused where the endpoint is not in service, or the account
        may not have so many.
        """
        self._check_in_service()
        up = [each for each in self.instances if each.stage in _UP]
        if count > len(up):
            self._check_quota(count - len(up))
        if count == len(up):
            return
        self.wanted = count
        self._turn("Updating")
        if count > len(up):
            self._launch(count - len(up), self.variant)
        else:
            up.sort(key=lambda each: (each.busy, -each.began))
            for each in up[: len(up) - count]:
                each.leave()
        self._settle()

    def update(self, variant: Variant, *, keep_count: bool) -> None:
        """Another configuration: new instances first, then the old ones leave. Raises Refused."""
        self._check_in_service()
        count = self.wanted if keep_count else variant.count
        self._check_quota(count)
        self._successor, self.wanted = replace(variant, count=count), count
        self._turn("Updating")
        self._launch(count, self._successor)
        self._settle()

    def delete(self, deleted: Callable[[], None]) -> None:
        """Stop everything; `deleted` is called once it is gone."""
        if self.status == "Deleting":
            return
        self._turn("Deleting")
        self._deleted = deleted
        for each in self.instances:
            if each.stage in _UP:
                each.leave()
        self._clock.after(self._durations.delete, self._settle)

    def accept(self, invocation: Invocation) -> None:
        """Queue a request."""
        self.waiting.append(invocation)
        self.feed()

    def feed(self) -> None:
        """Hand waiting requests to instances with room, the least busy first."""
        while self.waiting:
            free = [each for each in self.instances if each.free]
            if not free:
                return
            invocation = self.waiting.popleft()
            if self._clock.now() > invocation.received + invocation.ttl:
                self._finish(invocation, Answer(0, b""), "The request's time to live was over.")
                continue
            self._give(invocation, min(free, key=lambda each: each.busy))

    def look(self) -> None:
        """Health checks, and requests whose time to live is over."""
        for each in list(self.instances):
            each.look()
        now = self._clock.now()
        for invocation in [each for each in self.waiting if now > each.received + each.ttl]:
            self.waiting.remove(invocation)
            self._finish(invocation, Answer(0, b""), "The request's time to live was over.")

    def kill(self) -> None:
        """End every program on the spot: the rehearsal itself ends."""
        for each in self.instances:
            each.kill()

    def oldest(self) -> float:
        """Seconds that the oldest request has waited."""
        return self._clock.now() - self.waiting[0].received if self.waiting else 0.0

    def _give(self, invocation: Invocation, instance: Instance) -> None:
        try:
            body = invocation.body if invocation.body is not None else self._around.read(invocation.input)
        except LookupError:
            self._finish(invocation, Answer(0, b""), f"The input {invocation.input} could not be read.")
            return
        self._clock.after(invocation.timeout, lambda: self._timed_out(invocation, instance))
        instance.take(invocation, body, lambda answer: self._finish(invocation, answer, _why(answer)))

    def _timed_out(self, invocation: Invocation, instance: Instance) -> None:
        if not invocation.over:
            instance.forget(invocation)
            self._finish(invocation, Answer(0, b""), "The model did not answer within its time.")
            self.feed()

    def _finish(self, invocation: Invocation, answer: Answer, reason: str) -> None:
        if not invocation.over:
            invocation.over = True
            self._around.finished(self, invocation, answer, reason)

    def _launch(self, count: int, variant: Variant) -> None:
        for _ in range(count):
            name = f"{self.name}-i{next(self._numbers)}"
            worker = self._around.open_worker(self.name, name, variant)
            instance = Instance(
                name, variant, worker, self._clock, self._chance, self._durations, self._instance_changed
            )
            self.instances.append(instance)
            instance.launch()

    def _instance_changed(self, instance: Instance) -> None:
        if instance.stage is Stage.GONE:
            self.instances.remove(instance)
            if instance.failure:
                self.reason = instance.failure
                self.wanted = sum(each.stage in _UP for each in self.instances)
        self._settle()
        self.feed()

    def _settle(self) -> None:
        """Let the endpoint's status follow its instances."""
        stages = {each.stage for each in self.instances}
        if self.status == "Deleting":
            if not self.instances:
                self._deleted()
            return
        if self._successor is not None:
            self._replace(self._successor)
            return
        if stages & {Stage.PENDING, Stage.STARTING, Stage.LEAVING}:
            return
        if self.status == "Creating" and self.reason:
            self._turn("Failed")
            for each in list(self.instances):
                each.leave()
        elif self.status in ("Creating", "Updating"):
            self._turn("InService")

    def _replace(self, successor: Variant) -> None:
        """Blue and green: the old instances go once every new one serves; with one that fails they stay."""
        new = [each for each in self.instances if each.variant is successor]
        old = [each for each in self.instances if each.variant is not successor]
        if self.reason and len(new) < successor.count:
            self._successor, self.wanted = None, sum(each.stage in _UP for each in old)
            leaving = new
        elif all(each.stage is Stage.SERVING for each in new):
            self._successor, self.variant = None, successor
            leaving = old
        else:
            return
        for each in leaving:
            if each.stage in _UP:
                each.leave()
        self._settle()

    def _turn(self, status: str) -> None:
        log.info("endpoint %s: %s -> %s", self.name, self.status, status)
        if status == "Updating":
            self.reason = ""
        self.status, self.modified = status, self._clock.now()

    def _check_in_service(self) -> None:
        if self.status != "InService":
            raise Refused(
                "ValidationException",
                f"Cannot update endpoint {self.name!r} while it is {self.status}.",
            )

    def _check_quota(self, more: int) -> None:
        check_quota(self._around.quota_left(), more, self.variant.instance_type)


def check_quota(left: int | None, more: int, instance_type: str) -> None:
    """Raises Refused where the account may not have so many more instances."""
    if left is not None and more > left:
        raise Refused(
            "ResourceLimitExceeded",
            f"The account-level service limit '{instance_type} for endpoint usage' is exceeded: "
            f"{more} more instances were asked for and {left} are left. "
            "Please use AWS Service Quotas to request an increase for this quota.",
        )


def _why(answer: Answer) -> str:
    """A sentence for an answer that SageMaker counts as a failure, as it tells it."""
    if answer.good:
        return ""
    if answer.status == 0:
        return "ModelError: The container went away while it had the request."
    party = "client" if answer.status < 500 else "server"
    return f"ClientError: Received {party} error ({answer.status}) from model. See the endpoint's logs."
