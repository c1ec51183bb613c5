"""Parts on their way to SageMaker's endpoints: asynchronously through the bucket, or in a call of one's own
that waits.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from atelier import logs
from atelier.contract import keys
from atelier.contract.errors import AtelierError, NotFound, PayloadTooLarge, WorkerUnavailable, WorkReturned
from atelier.storage.base import BlobStore
from portal.adapters.aws import failures
from portal.adapters.aws.names import Names
from portal.services.ports import Clock, Completion, Outcome, Submission, TicketState

log = logging.getLogger(__name__)

JSON = "application/json"
INVOCATION_SECONDS = 3600
"""How long a worker may be at one body: the most that SageMaker allows."""
TTL_SECONDS = 21_600
"""How long a body may wait in SageMaker's queue: the most that SageMaker allows."""
LARGEST_CALL = 6 * 2**20
"""Bytes that a realtime endpoint takes and gives."""
REMEMBERED_TICKETS = 10_000


class AsyncCalls:
    """Puts bodies into the bucket and tells SageMaker where they are. `runtime` is a boto3 client."""

    def __init__(self, runtime: Any, store: BlobStore, names: Names, clock: Clock) -> None:
        self._runtime = runtime
        self._store = store
        self._names = names
        self._clock = clock

    def submit(self, submission: Submission) -> str:
        """The ticket. Raises AtelierError."""
        key = keys.invocation(submission.job, submission.part, submission.attempt)
        body = json.dumps(submission.body, ensure_ascii=False, separators=(",", ":")).encode()
        self._store.put(key, body, content_type=JSON)
        label = f"{submission.part}-{submission.attempt}"[-64:]
        return self.send(submission.endpoint, key, JSON, label).ticket

    def send(self, endpoint: str, key: str, content_type: str, label: str, *, custom: bool = False) -> Sent:
        """Let an endpoint take the body that lies under `key`. `label` is its id in SageMaker's notices;
        `custom` says that the endpoint runs somebody's own image.
        """
        try:
            told = self._runtime.invoke_endpoint_async(
                EndpointName=self._names.endpoint(endpoint),
                ContentType=content_type,
                Accept="*/*" if content_type != JSON else JSON,
                InferenceId=label,
                InputLocation=self._store.location(key),
                RequestTTLSeconds=TTL_SECONDS,
                InvocationTimeoutSeconds=INVOCATION_SECONDS,
            )
        except (ClientError, BotoCoreError) as error:
            raise refused(error, endpoint) from error
        until = int(self._clock.now()) + TTL_SECONDS + INVOCATION_SECONDS
        answer, failure = told.get("OutputLocation", ""), told.get("FailureLocation", "")
        return Sent(endpoint, _last(answer), _last(failure), until, custom)

    def outcome(self, ticket: str) -> Outcome | None:
        """The blob that a call's end has made, if it has. Raises NotFound once it would have."""
        sent = Sent.of(ticket)
        if sent is not None:
            if sent.answer_key and self._store.stat(sent.answer_key):
                return Outcome(sent.answer_key)
            if sent.failure_key and self._store.stat(sent.failure_key):
                return Outcome(sent.failure_key, failed=True)
        if sent is None or self._clock.now() >= sent.until:
            raise NotFound("There is no such call, or the endpoint never answered it.")
        return None

    def poll(self, ticket: str) -> TicketState:
        """Done once SageMaker has noted an answer or a failure; unknown once it must have."""
        sent = Sent.of(ticket)
        if sent is None:
            return TicketState.UNKNOWN
        try:
            return TicketState.PENDING if self.outcome(ticket) is None else TicketState.DONE
        except NotFound:
            return TicketState.UNKNOWN


@dataclass(frozen=True)
class Sent:
    """An asynchronous call: names of the objects that its end will make, and until when that must have
    happened (unix seconds).
    """

    endpoint: str
    answer: str
    failure: str
    until: int
    custom: bool = False

    @property
    def ticket(self) -> str:
        """As text of at most 200 characters."""
        kind = "c" if self.custom else "a"
        return f"{kind} {self.until} {self.endpoint} {self.answer} {self.failure}".rstrip()

    @property
    def answer_key(self) -> str:
        """Where the answer will lie; empty where SageMaker did not say."""
        return f"{folders(self.endpoint, custom=self.custom)[0]}/{self.answer}" if self.answer else ""

    @property
    def failure_key(self) -> str:
        """Where the reason of a failure will lie."""
        return f"{folders(self.endpoint, custom=self.custom)[1]}/{self.failure}" if self.failure else ""

    @classmethod
    def of(cls, ticket: str) -> Sent | None:
        """The call of a ticket; None for any other ticket."""
        words = ticket.split(" ")
        if len(words) not in (4, 5) or words[0] not in ("a", "c") or not words[1].isdigit():
            return None
        failure = words[4] if len(words) == 5 else ""
        return cls(words[2], words[3], failure, int(words[1]), words[0] == "c")


def folders(endpoint: str, *, custom: bool) -> tuple[str, str]:
    """Where an endpoint's answers and failures are noted: those of custom ones are kept for longer."""
    if custom:
        return keys.custom_answers(endpoint), keys.custom_failures(endpoint)
    return keys.async_answers(endpoint), keys.async_failures(endpoint)


class WaitingCalls:
    """Calls of realtime endpoints, each in a thread of its own; the end is told to `tell`."""

    def __init__(self, runtime: Any, names: Names, tell: Callable[[Completion], None]) -> None:
        self._runtime = runtime
        self._names = names
        self._tell = tell
        self._lock = threading.Lock()
        self._run = uuid.uuid4().hex[:12]
        self._tickets: OrderedDict[str, TicketState] = OrderedDict()

    def submit(self, submission: Submission) -> str:
        """The ticket. Raises PayloadTooLarge."""
        body = json.dumps(submission.body, ensure_ascii=False, separators=(",", ":")).encode()
        check_size(body)
        ticket = f"r-{self._run}-{uuid.uuid4().hex}"
        with self._lock:
            self._tickets[ticket] = TicketState.PENDING
            while len(self._tickets) > REMEMBERED_TICKETS:
                self._tickets.popitem(last=False)
        carry = logs.carried(self._carry)
        name = f"invocation-{submission.part[-8:]}"
        threading.Thread(target=carry, args=(submission, body, ticket), name=name, daemon=True).start()
        return ticket

    def poll(self, ticket: str) -> TicketState:
        """What became of it; tickets of another process are unknown."""
        with self._lock:
            return self._tickets.get(ticket, TicketState.UNKNOWN)

    def call(self, endpoint: str, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """(answer, its content type) of one call. Raises AtelierError."""
        check_size(body)
        try:
            told = self._runtime.invoke_endpoint(
                EndpointName=self._names.endpoint(endpoint),
                Body=body,
                ContentType=content_type,
                Accept=accept,
            )
            return told["Body"].read(), told.get("ContentType", "application/octet-stream")
        except (ClientError, BotoCoreError) as error:
            raise refused(error, endpoint) from error

    def _carry(self, submission: Submission, body: bytes, ticket: str) -> None:
        error: dict[str, Any] | None = None
        try:
            told = self._runtime.invoke_endpoint(
                EndpointName=self._names.endpoint(submission.endpoint),
                Body=body,
                ContentType=JSON,
                Accept=JSON,
                InferenceId=f"{submission.part}-{submission.attempt}"[-64:],
            )
            told["Body"].read()
        except ReadTimeoutError:
            # SageMaker waits 60 s; the worker goes on, and what it leaves in the store is found there.
            log.warning("the realtime endpoint %s did not answer in time", submission.endpoint)
            return
        except (ClientError, BotoCoreError) as failure:
            error = refused(failure, submission.endpoint).body()
        except Exception as failure:  # whatever happened, somebody waits for the message
            log.exception("the endpoint %s could not be asked", submission.endpoint)
            error = WorkerUnavailable(f"The endpoint could not be asked: {failure}.").body()
        with self._lock:
            if ticket in self._tickets:
                self._tickets[ticket] = TicketState.DONE
        self._tell(Completion(submission.job, submission.part, submission.attempt, error))


def check_size(body: bytes) -> None:
    """Raise PayloadTooLarge for what no realtime endpoint takes."""
    if len(body) > LARGEST_CALL:
        raise PayloadTooLarge(
            f"A realtime endpoint takes {LARGEST_CALL} bytes, and this body has {len(body)}. "
            "Send it to an asynchronous endpoint.",
            detail={"limit": LARGEST_CALL},
        )


def refused(error: ClientError | BotoCoreError, endpoint: str) -> AtelierError:
    """Why an endpoint did not take a body, or did not answer it well."""
    from_worker = failures.of_worker(error)
    if from_worker is not None:
        return from_worker
    if isinstance(error, ClientError) and failures.code_of(error) in (
        "ValidationError",
        "ValidationException",
    ):
        # It is gone, or still being made: neither is the work's fault.
        return WorkReturned(f"The endpoint {endpoint!r} takes nothing now: {failures.said(error)}.")
    return failures.translated(error, f"sending to the endpoint {endpoint!r}")


def _last(location: str) -> str:
    return location.rpartition("/")[2]
