"""What SageMaker knows of an endpoint from its configuration and model, and what it is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Durations:
    """Seconds of simulated time that SageMaker takes; each instance's differ a little from these."""

    provision: float = 120.0
    """Until a machine is found and has started."""
    image: float = 90.0
    """Until it has the container's image."""
    start: float = 45.0
    """Until the program answers /ping, or a program that died runs again."""
    leave: float = 30.0
    """Between the request to stop and the end, where work is still running."""
    delete: float = 30.0

    @property
    def to_serve(self) -> float:
        """From the decision for an instance to its first work."""
        return self.provision + self.image + self.start


@dataclass(frozen=True)
class Variant:
    """The one production variant of an endpoint. Times in seconds, locations as s3:// prefixes; without
    `output` the endpoint answers in real time.
    """

    name: str
    instance_type: str
    count: int
    image: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    concurrency: int = 1000
    startup_timeout: float = 600.0
    output: str | None = None
    failure: str | None = None
    success_topic: str | None = None
    error_topic: str | None = None

    @property
    def asynchronous(self) -> bool:
        """Whether it takes InvokeEndpointAsync, and that alone."""
        return self.output is not None


@dataclass(frozen=True)
class Answer:
    """What a worker said. Status 0 where it went away without a word."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @property
    def good(self) -> bool:
        """Whether SageMaker counts it as success: any 2xx, whatever it says."""
        return 200 <= self.status < 300


@dataclass
class Invocation:
    """A request on its way. `received` in simulated unix seconds."""

    id: str
    received: float
    body: bytes | None = None
    input: str = ""
    content_type: str = "application/json"
    accept: str = ""
    custom: str = ""
    ttl: float = 21600.0
    timeout: float = 900.0
    output: str = ""
    failure: str = ""
    over: bool = False
    answered: Callable[[Answer, str], None] | None = None
    """What takes the answer of a request in real time, with the name of the variant."""

    def headers(self) -> dict[str, str]:
        """What the worker gets with the body."""
        found = {"Content-Type": self.content_type, "X-Amzn-SageMaker-Inference-Id": self.id}
        if self.accept:
            found["Accept"] = self.accept
        if self.custom:
            found["X-Amzn-SageMaker-Custom-Attributes"] = self.custom
        return found


class Worker(Protocol):
    """A container on an instance. What it is given to call is called under the clock's lock."""

    def start(self, ready: Callable[[str], None]) -> None:
        """Run the program; `ready` is told "" once /ping answers 200, else why it never will."""
        ...

    def alive(self) -> bool:
        """Whether the program runs."""
        ...

    def invoke(self, body: bytes, headers: Mapping[str, str], done: Callable[[Answer], None]) -> None:
        """Hand over a request; its answer goes to `done`."""
        ...

    def crash(self) -> None:
        """Die on the spot."""
        ...

    def stop(self, stopped: Callable[[], None]) -> None:
        """Drain and end; `stopped` is told when it is over."""
        ...
