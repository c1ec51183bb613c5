"""What the services ask of the world outside: small protocols, each with a local adapter (and others
elsewhere) chosen in bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

USUAL_SLOTS = 3
"""Parts a worker has at once where nobody says more. On a processor eight pictures take nearly eight times
one: more would only make somebody who comes anew wait for more of others' work.
"""


class Clock(Protocol):
    """The time."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; somebody who sets the time does not move them."""
        ...


class Secrets(Protocol):
    """Secrets of the deployment by name, made on first use."""

    def get(self, name: str) -> bytes:
        """The secret: at least 32 random bytes, the same at every call."""
        ...


class EndpointState(StrEnum):
    """What a fleet says of an endpoint."""

    CREATING = "creating"
    STARTING = "starting"
    IN_SERVICE = "in_service"
    ASLEEP = "asleep"
    """At zero instances; the next part wakes it."""
    FAILED = "failed"
    DELETING = "deleting"
    """It gets nothing any more and goes once its workers have stopped."""
    DELETED = "deleted"


@dataclass(frozen=True)
class InstanceType:
    """A kind of instance that a fleet can start. Memory in bytes; `slots` and `price_hour` (in the studio's
    currency) are what a new endpoint begins with.
    """

    name: str
    description: str
    threads: int
    memory: int
    device: str = "cpu"
    gpu: str = ""
    gpu_memory: int = 0
    slots: int = USUAL_SLOTS
    price_hour: float = 0.0
    price_of: str = ""
    """Region and month that `price_hour` is of; empty where nobody sells it."""
    bf16: bool = True
    """Whether it computes in bfloat16."""
    disk: int = 0
    """Bytes of its own quick disk; 0 where it has none or nobody asks."""


class EndpointKind(StrEnum):
    """How an endpoint is asked. The custom ones run any image that answers /ping and /invocations: they get
    bodies untouched, and no parts of jobs.
    """

    ASYNC = "async"
    REALTIME = "realtime"
    CUSTOM = "custom"
    CUSTOM_REALTIME = "custom-realtime"

    @property
    def waits(self) -> bool:
        """Whether the caller waits for the answer, so that it can never be at zero instances."""
        return self in (EndpointKind.REALTIME, EndpointKind.CUSTOM_REALTIME)

    @property
    def custom(self) -> bool:
        """Whether it runs somebody's own image."""
        return self in (EndpointKind.CUSTOM, EndpointKind.CUSTOM_REALTIME)


class Metric(StrEnum):
    """What an endpoint scales by."""

    DEMAND = "demand"
    """Parts that wait for it and parts it has, as the portal counts them."""
    BACKLOG = "backlog"
    """SageMaker's own backlog, for each instance."""
    INVOCATIONS = "invocations"
    """Calls in a minute, for each instance of a realtime endpoint."""


@dataclass(frozen=True)
class EndpointSpec:
    """What an administrator decides of an endpoint. `slots` is how many parts one instance has at once,
    `target` how many parts (waiting and in work) for each instance are enough for another one, None for as
    many as it has slots; `idle_seconds` until what is not needed goes; `price_hour` of one instance.
    """

    name: str
    min_instances: int = 1
    max_instances: int = 1
    slots: int = USUAL_SLOTS
    idle_seconds: float = 600.0
    threads: int = 1
    options: dict[str, str] = field(default_factory=dict)
    target: int | None = None
    instance_type: str = ""
    price_hour: float = 0.0
    kind: str = EndpointKind.ASYNC.value
    image: str = ""
    """Of custom kinds: what their instances run. Of the others empty for the deployment's own."""
    metric: str = Metric.DEMAND.value
    schedule: str = ""
    """Hours with other numbers (portal.domain.schedule); empty for none."""

    @property
    def parts_each(self) -> int:
        """`target` in force."""
        return self.target or self.slots


@dataclass(frozen=True)
class EndpointStatus:
    """What a fleet knows of an endpoint: `instances` in service, how many are `wanted`, and how many finish
    their work and are `leaving`. `reason` is a sentence, set where it or one of its instances failed; `note`
    one about what it waits for, as a change that has its turn later.
    """

    state: EndpointState
    instances: int = 0
    reason: str = ""
    wanted: int = 0
    leaving: int = 0
    note: str = ""


@dataclass(frozen=True)
class Submission:
    """A signed body on its way to an endpoint, and the attempt it is."""

    endpoint: str
    job: str
    part: str
    attempt: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Completion:
    """A notification that an attempt ended. `error` is an error body (atelier.contract.errors); None where
    it succeeded.

    It may come twice, late, or never: what counts is what lies in the blob store.
    """

    job: str
    part: str
    attempt: int
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class Message:
    """A completion as an inbox hands it out; it comes again until it is acknowledged by its receipt."""

    receipt: str
    completion: Completion


class TicketState(StrEnum):
    """What a fleet says of a submission."""

    PENDING = "pending"
    DONE = "done"
    UNKNOWN = "unknown"
    """Never heard of, or lost with a process."""


@dataclass(frozen=True)
class Outcome:
    """The end of a call of a custom endpoint: the blob with its answer, or with the reason of its failure."""

    key: str
    failed: bool = False


class Fleet(Protocol):
    """Inference endpoints: made, watched, fed. No method waits for a worker."""

    def check(self, spec: EndpointSpec) -> None:
        """Raise InvalidRequest, in words, for what this fleet cannot make."""
        ...

    def create(self, spec: EndpointSpec) -> None:
        """Make the endpoint, or take over one of that name. Raises AtelierError where it cannot be."""
        ...

    def update(self, spec: EndpointSpec) -> None:
        """Change an endpoint. What it runs is not interrupted unless the change needs another worker."""
        ...

    def delete(self, name: str) -> None:
        """Take the endpoint away and stop its workers; nothing happens where there is none."""
        ...

    def release(self, name: str) -> None:
        """Another process looks after the endpoint from now on. What only this process can run ends; what
        runs by itself goes on.
        """
        ...

    def describe(self, name: str) -> EndpointStatus:
        """How the endpoint is."""
        ...

    def demand(self, name: str, parts: int) -> None:
        """Tell an endpoint how many parts wait for it or are with it: by that it scales. Told again every
        few seconds; a demand that is not counts as none after a while.
        """
        ...

    def offers(self) -> tuple[InstanceType, ...]:
        """The kinds of instances there are to choose from."""
        ...

    def submit(self, submission: Submission) -> str:
        """Hand a part over and return a ticket at once; the end comes through the Inbox. Raises
        AtelierError where it is refused.
        """
        ...

    def poll(self, ticket: str) -> TicketState:
        """What became of a ticket."""
        ...

    def ask(self, name: str, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """(answer, media type) of a custom endpoint whose callers wait, to an untouched body. Raises
        AtelierError.
        """
        ...

    def leave(self, name: str, key: str, content_type: str) -> str:
        """Let another custom endpoint take the blob `key` as its body, untouched; a ticket for `outcome`.
        Raises AtelierError.
        """
        ...

    def outcome(self, ticket: str) -> Outcome | None:
        """What became of such a call; None while nothing has. Raises NotFound once nothing will."""
        ...

    def close(self) -> None:
        """Let go of everything this process holds: on one machine the workers end."""
        ...


class Inbox(Protocol):
    """Completions, at least once, in any order."""

    def receive(self, timeout: float) -> list[Message]:
        """Messages that are there, or the first to come within `timeout` seconds."""
        ...

    def ack(self, receipt: str) -> None:
        """Done with that message."""
        ...


class TaskAction(StrEnum):
    """What a CPU task does."""

    CONVERT = "convert"
    """A foreign model file into safetensors, in a confined process."""
    FOLDER = "folder"
    """A model folder of the diffusers library into one file."""
    HASH = "hash"
    """The hashes of a file."""
    IMPORT = "import"
    """A model from the Hub, a web address or another bucket into the store."""
    DETECT = "detect"
    """The map a preprocessor makes of a picture; the source is the key of a document that says how."""


@dataclass(frozen=True)
class TaskSpec:
    """A piece of CPU work. `source` is a blob key, or `file:///path` where tasks run on the portal's machine;
    of an import it is its order's key with what opens it (atelier.contract.imports.ImportOrder). `name` is
    what messages call it, `kind` the kind of model.
    """

    action: TaskAction
    source: str
    name: str
    kind: str = ""


class TaskState(StrEnum):
    """How a task is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Never heard of, stopped, or lost with a process."""


@dataclass(frozen=True)
class TaskStatus:
    """What is known of a task. `outcome` is what it found where it succeeded, `error` an error body where it
    failed. The file it made lies under keys.task_output(ticket).
    """

    state: TaskState
    outcome: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


class Tasks(Protocol):
    """CPU work outside the portal: one process for each piece, with nothing of the portal's rights."""

    def start(self, spec: TaskSpec) -> str:
        """Begin and return a ticket at once. Raises AtelierError where it cannot be."""
        ...

    def describe(self, ticket: str, *, wait: float = 0.0) -> TaskStatus:
        """How the task is; up to `wait` seconds are spent waiting for its end."""
        ...

    def stop(self, ticket: str) -> None:
        """End the task where it still runs, and remove what it made. Doing it again changes nothing."""
        ...

    def logs(self, ticket: str) -> str:
        """The end of what the task wrote to its log."""
        ...

    def close(self) -> None:
        """Follow no task any more. Those that are this process's children end; those that run elsewhere go
        on, and whoever has their tickets can follow them.
        """
        ...


@dataclass(frozen=True)
class PlatformPart:
    """A part of the platform that the studio leans on. `look` says how it is, and raises AtelierError where
    it does not work; strangers are told `broken`. `name` is one word, `title` what people call it.
    """

    name: str
    title: str
    broken: str
    look: Callable[[], str]
