"""Endpoints as child processes of the portal: submitted to as SageMaker's are, asynchronously, with the end
told through an inbox.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import httpx

from atelier import logs
from atelier.contract.errors import InvalidRequest, WorkerUnavailable, WorkReturned
from portal.adapters.local.crew import Crew
from portal.adapters.local.custom import NoCustomEndpoints
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.local.machine import offers
from portal.adapters.local.worker_process import Launch
from portal.services.ports import (
    Completion,
    EndpointKind,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    InstanceType,
    Metric,
    Submission,
    TicketState,
)

log = logging.getLogger(__name__)

REMEMBERED_TICKETS = 10_000


class LocalFleet(NoCustomEndpoints):
    """Fleet on this machine: for each endpoint as many worker processes as its demand asks for, between its
    least and its most, restarted when they die. `now` gives seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        inbox: QueueInbox,
        launch: Launch,
        data_dir: Path,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._launch = launch
        self._data_dir = data_dir
        self._now = now
        self._lock = threading.Lock()
        self._crews: dict[str, Crew] = {}
        self._deleting: set[str] = set()
        self._run = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._tickets: OrderedDict[str, TicketState] = OrderedDict()
        self._http = httpx.Client(
            trust_env=False,
            timeout=httpx.Timeout(5.0, read=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def check(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        check(spec)

    def create(self, spec: EndpointSpec) -> None:
        """See Fleet. An endpoint that must not sleep gets its workers at once."""
        with self._lock:
            known = self._crews.get(spec.name)
            if known is None:
                self._crews[spec.name] = Crew(spec, self._launch, self._data_dir, self._http, self._now)
        if known is not None:
            known.change(spec)

    def update(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        self.create(spec)

    def delete(self, name: str) -> None:
        """See Fleet."""
        with self._lock:
            crew = self._crews.pop(name, None)
            if crew is None:
                return
            self._deleting.add(name)
        crew.close()
        with self._lock:
            self._deleting.discard(name)

    def release(self, name: str) -> None:
        """See Fleet. Its workers are children of this process, and end."""
        self.delete(name)

    def describe(self, name: str) -> EndpointStatus:
        """See Fleet."""
        with self._lock:
            crew = self._crews.get(name)
            if crew is None and name in self._deleting:
                return EndpointStatus(EndpointState.DELETING)
        return crew.status() if crew else EndpointStatus(EndpointState.DELETED)

    def demand(self, name: str, parts: int) -> None:
        """See Fleet."""
        with self._lock:
            crew = self._crews.get(name)
        if crew is not None:
            crew.tell(parts)

    def offers(self) -> tuple[InstanceType, ...]:
        """See Fleet."""
        return offers()

    def submit(self, submission: Submission) -> str:
        """See Fleet. A thread of its own waits for the worker and for the answer."""
        with self._lock:
            crew = self._crews.get(submission.endpoint)
            if crew is None:
                raise WorkReturned(f"The endpoint {submission.endpoint!r} is not running here.")
            ticket = f"{self._run}-{next(self._numbers)}"
            self._tickets[ticket] = TicketState.PENDING
            while len(self._tickets) > REMEMBERED_TICKETS:
                self._tickets.popitem(last=False)
        crew.expect()
        name = f"invocation-{submission.part[-8:]}"
        carry = logs.carried(self._carry)
        threading.Thread(target=carry, args=(crew, submission, ticket), name=name, daemon=True).start()
        return ticket

    def poll(self, ticket: str) -> TicketState:
        """See Fleet. Tickets of another run of the portal are unknown: its workers died with it."""
        with self._lock:
            return self._tickets.get(ticket, TicketState.UNKNOWN)

    def close(self) -> None:
        """Stop every worker."""
        with self._lock:
            crews, self._crews = list(self._crews.values()), {}
        stopping = [threading.Thread(target=crew.close, daemon=True) for crew in crews]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._http.close()

    def _carry(self, crew: Crew, submission: Submission, ticket: str) -> None:
        try:
            error = crew.invoke(submission.body)
        except Exception as failure:  # whatever happened, somebody waits for the message
            log.exception("the worker of endpoint %s could not be asked", submission.endpoint)
            error = WorkerUnavailable(f"The worker could not be asked: {failure}.").body()
        finally:
            crew.release()
        with self._lock:
            if ticket in self._tickets:
                self._tickets[ticket] = TicketState.DONE
        self._inbox.put(Completion(submission.job, submission.part, submission.attempt, error))


def check(spec: EndpointSpec) -> None:
    """Raise InvalidRequest for what only AWS has: it would be ignored here without a word."""
    reason = ""
    if spec.kind != EndpointKind.ASYNC or spec.image:
        reason, field = "runs Atelier's own workers, which are asked by its queue: kind is 'async'", "kind"
        field = "image" if spec.kind == EndpointKind.ASYNC else field
    elif spec.metric != Metric.DEMAND:
        reason, field = "scales by the portal's demand: metric is 'demand'", "metric"
    elif spec.schedule:
        reason, field = "keeps no hours: schedule stays empty", "schedule"
    if reason:
        raise InvalidRequest(f"An endpoint on one machine {reason}. AWS has more.", detail={"field": field})
