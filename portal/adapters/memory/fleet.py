"""A fleet without workers: it keeps what it is given, and ends it as it is told."""

from __future__ import annotations

import hashlib
import json

from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.contract.parts import PartResult, PictureResult, ProgressState, ResolvedPart
from atelier.storage.base import BlobStore
from portal.adapters.local.inbox import QueueInbox
from portal.services.ports import (
    Completion,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    InstanceType,
    Outcome,
    Submission,
    TicketState,
)

OFFERS = (
    InstanceType("small", "2 processor threads", threads=2, memory=4 * 2**30, price_hour=0.1),
    InstanceType(
        "large",
        "8 processor threads and a GPU",
        threads=8,
        memory=32 * 2**30,
        device="cuda",
        gpu="GPU",
        gpu_memory=24 * 2**30,
        slots=16,
        price_hour=1.5,
    ),
)


class InMemoryFleet:
    """Fleet whose parts end by `succeed`, `fail` or `lose`; it writes to the store what a worker would."""

    def __init__(self, store: BlobStore, inbox: QueueInbox) -> None:
        self._store = store
        self._inbox = inbox
        self.endpoints: dict[str, EndpointSpec] = {}
        self.statuses: dict[str, EndpointStatus] = {}
        self.demands: dict[str, int] = {}
        self.submissions: list[Submission] = []
        self.refusal: AtelierError | None = None
        self._tickets: dict[str, TicketState] = {}
        self.left: list[tuple[str, str, str]] = []
        self.outcomes: dict[str, Outcome] = {}

    def check(self, spec: EndpointSpec) -> None:
        """See Fleet. It makes everything."""

    def create(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        self.endpoints[spec.name] = spec
        self.statuses.setdefault(spec.name, EndpointStatus(EndpointState.IN_SERVICE, 1))

    def update(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        self.create(spec)

    def delete(self, name: str) -> None:
        """See Fleet."""
        self.endpoints.pop(name, None)
        self.statuses.pop(name, None)

    def release(self, name: str) -> None:
        """See Fleet."""
        self.delete(name)

    def describe(self, name: str) -> EndpointStatus:
        """See Fleet."""
        return self.statuses.get(name, EndpointStatus(EndpointState.DELETED))

    def demand(self, name: str, parts: int) -> None:
        """See Fleet."""
        self.demands[name] = parts

    def offers(self) -> tuple[InstanceType, ...]:
        """See Fleet."""
        return OFFERS

    def submit(self, submission: Submission) -> str:
        """See Fleet. `refusal`, where set, is raised instead."""
        if self.refusal is not None:
            raise self.refusal
        self.submissions.append(submission)
        ticket = _ticket(submission)
        self._tickets[ticket] = TicketState.PENDING
        return ticket

    def poll(self, ticket: str) -> TicketState:
        """See Fleet."""
        return self._tickets.get(ticket, TicketState.UNKNOWN)

    def ask(self, name: str, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """See Fleet. The answer is the body."""
        return body, content_type

    def leave(self, name: str, key: str, content_type: str) -> str:
        """See Fleet. It ends when a test puts an outcome under its ticket."""
        self.left.append((name, key, content_type))
        return key

    def outcome(self, ticket: str) -> Outcome | None:
        """See Fleet."""
        return self.outcomes.get(ticket)

    def close(self) -> None:
        """See Fleet."""

    def forget_tickets(self) -> None:
        """What a restart of the process does."""
        self._tickets.clear()

    def progress(self, submission: Submission, seq: int, *, step: int = 1) -> None:
        """Write progress as a worker would."""
        part = ResolvedPart.model_validate(submission.body["resolved"])
        state = ProgressState(
            seq=seq,
            phase="steps",
            step=step,
            steps=part.steps,
            pictures_done=0,
            pictures=part.batch_size,
            at=0.0,
        )
        key = keys.progress(submission.job, submission.part, submission.attempt)
        self._store.put(key, state.model_dump_json().encode())

    def succeed(
        self,
        submission: Submission,
        *,
        stopped: bool = False,
        tell: bool = True,
        timeline: dict[str, float] | None = None,
    ) -> None:
        """Store a result with one small picture for each seed and, unless `tell` is false, announce it."""
        part = ResolvedPart.model_validate(submission.body["resolved"])
        pictures = tuple(self._picture(submission, part, index) for index in range(part.batch_size))
        result = PartResult(
            job=submission.job,
            part=submission.part,
            attempt=submission.attempt,
            pictures=pictures,
            stopped=stopped,
            timeline=timeline or {},
        )
        key = keys.result(submission.job, submission.part, submission.attempt)
        self._store.put(key, result.model_dump_json().encode())
        self._end(submission, None, tell)

    def fail(self, submission: Submission, error: AtelierError, *, tell: bool = True) -> None:
        """Store the error of an attempt and announce it."""
        key = keys.error(submission.job, submission.part, submission.attempt)
        self._store.put(key, json.dumps({"error": error.body()}).encode())
        self._end(submission, error, tell)

    def _end(self, submission: Submission, error: AtelierError | None, tell: bool) -> None:
        self._tickets[_ticket(submission)] = TicketState.DONE
        if tell:
            body = error.body() if error else None
            self._inbox.put(Completion(submission.job, submission.part, submission.attempt, body))

    def _picture(self, submission: Submission, part: ResolvedPart, index: int) -> PictureResult:
        data = f"{submission.part}/{submission.attempt}/{index}".encode()
        key = keys.picture(submission.job, submission.part, submission.attempt, index)
        self._store.put(key, data)
        return PictureResult(
            index=index,
            key=key,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            width=part.width,
            height=part.height,
            seed=part.seeds[index],
            subseed=part.subseeds[index],
            infotext=f"{part.prompt}\nSteps: {part.steps}, Seed: {part.seeds[index]}",
            recipe_hash=part.recipe_hash,
        )


def _ticket(submission: Submission) -> str:
    return f"{submission.part}-{submission.attempt}"
