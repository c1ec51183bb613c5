"""Endpoints as child processes of the portal: submitted to as SageMaker's are, asynchronously, with the end
told through an inbox.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections import OrderedDict
from pathlib import Path

import httpx

from atelier import logs
from atelier.contract.errors import WorkerUnavailable, WorkReturned
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.local.worker_process import Launch, WorkerProcess
from portal.services.ports import (
    Completion,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    Submission,
    TicketState,
)

log = logging.getLogger(__name__)

REMEMBERED_TICKETS = 10_000


class LocalFleet:
    """Fleet on this machine: one worker process for each endpoint, started when wanted, restarted when it
    dies, stopped when idle.
    """

    def __init__(self, inbox: QueueInbox, launch: Launch, data_dir: Path) -> None:
        self._inbox = inbox
        self._launch = launch
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._workers: dict[str, WorkerProcess] = {}
        self._run = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._tickets: OrderedDict[str, TicketState] = OrderedDict()
        self._http = httpx.Client(
            trust_env=False,
            timeout=httpx.Timeout(5.0, read=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def create(self, spec: EndpointSpec) -> None:
        """See Fleet. An endpoint that must not sleep gets its worker at once."""
        with self._lock:
            known = self._workers.get(spec.name)
            if known is None:
                self._workers[spec.name] = WorkerProcess(spec, self._launch, self._data_dir, self._http)
        if known is not None:
            known.change(spec)

    def update(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        self.create(spec)

    def delete(self, name: str) -> None:
        """See Fleet."""
        with self._lock:
            worker = self._workers.pop(name, None)
        if worker is not None:
            worker.close()

    def describe(self, name: str) -> EndpointStatus:
        """See Fleet."""
        with self._lock:
            worker = self._workers.get(name)
        return worker.status() if worker else EndpointStatus(EndpointState.DELETED)

    def submit(self, submission: Submission) -> str:
        """See Fleet. A thread of its own waits for the worker and for the answer."""
        with self._lock:
            worker = self._workers.get(submission.endpoint)
            if worker is None:
                raise WorkReturned(f"The endpoint {submission.endpoint!r} is not running here.")
            ticket = f"{self._run}-{next(self._numbers)}"
            self._tickets[ticket] = TicketState.PENDING
            while len(self._tickets) > REMEMBERED_TICKETS:
                self._tickets.popitem(last=False)
        worker.expect()
        name = f"invocation-{submission.part[-8:]}"
        carry = logs.carried(self._carry)
        threading.Thread(target=carry, args=(worker, submission, ticket), name=name, daemon=True).start()
        return ticket

    def poll(self, ticket: str) -> TicketState:
        """See Fleet. Tickets of another run of the portal are unknown: its workers died with it."""
        with self._lock:
            return self._tickets.get(ticket, TicketState.UNKNOWN)

    def close(self) -> None:
        """Stop every worker."""
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        stopping = [threading.Thread(target=worker.close, daemon=True) for worker in workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._http.close()

    def _carry(self, worker: WorkerProcess, submission: Submission, ticket: str) -> None:
        try:
            error = worker.invoke(submission.body)
        except Exception as failure:  # whatever happened, somebody waits for the message
            log.exception("the worker of endpoint %s could not be asked", submission.endpoint)
            error = WorkerUnavailable(f"The worker could not be asked: {failure}.").body()
        finally:
            worker.release()
        with self._lock:
            if ticket in self._tickets:
                self._tickets[ticket] = TicketState.DONE
        self._inbox.put(Completion(submission.job, submission.part, submission.attempt, error))
