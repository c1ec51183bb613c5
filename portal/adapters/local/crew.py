"""The workers of one local endpoint: how many there are follows the demand, and work goes to any of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from atelier.contract.errors import WorkerUnavailable, WorkReturned
from portal.adapters.local.worker_process import WATCH_SECONDS, Launch, Running, WorkerProcess
from portal.domain.scaling import Peak, needed
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus

DEMAND_SECONDS = 30.0
"""A demand that was not told again for so long counts as none: whoever told it may be gone."""
_BEST_FIRST = (EndpointState.IN_SERVICE, EndpointState.STARTING, EndpointState.ASLEEP, EndpointState.FAILED)


class Crew:
    """Workers between the endpoint's least and most. `expect`, `invoke` and `release` frame one request;
    everything is safe from any thread. `now` gives seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        launch: Launch,
        data_dir: Path,
        http: httpx.Client,
        now: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._launch = launch
        self._data_dir = data_dir
        self._http = http
        self._now = now
        self._changed = threading.Condition()
        self._workers: list[WorkerProcess] = []
        self._peak = Peak()
        self._wanted = 0
        self._expected = 0
        self._demand, self._told = 0, now()
        self._closing = False
        with self._changed:
            self._scale()
        self._thread = threading.Thread(target=self._mind, name=f"crew-{spec.name}", daemon=True)
        self._thread.start()

    def status(self) -> EndpointStatus:
        """How the endpoint is. It has failed where no worker serves or comes up and one has failed."""
        with self._changed:
            serving = sum(each.serves for each in self._workers)
            leaving = sum(not each.wanted and not each.away for each in self._workers)
            wanted = [each for each in self._workers if each.wanted]
            failed = next((each.reason for each in wanted if each.state is EndpointState.FAILED), "")
            if serving:
                state = EndpointState.IN_SERVICE
            elif any(each.state is not EndpointState.FAILED for each in wanted):
                state = EndpointState.STARTING
            else:
                state = EndpointState.FAILED if failed else EndpointState.ASLEEP
            return EndpointStatus(state, serving, failed, self._wanted, leaving)

    def change(self, spec: EndpointSpec) -> None:
        """Take other numbers; running work is not interrupted."""
        with self._changed:
            self._spec = spec
            workers = list(self._workers)
            self._scale()
        for each in workers:
            each.change(spec)

    def tell(self, demand: int) -> None:
        """So many parts wait for this endpoint or are with it."""
        with self._changed:
            self._demand, self._told = demand, self._now()
            self._scale()

    def expect(self) -> None:
        """A request is coming: wake up, and do not fall asleep."""
        with self._changed:
            self._expected += 1
            self._scale()

    def release(self) -> None:
        """That request is over."""
        with self._changed:
            self._expected -= 1
            self._scale()

    def invoke(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Send a body to a worker once one is ready, and wait for the end of the work. The error body,
        None where it went well.
        """
        try:
            worker, running = self._taken()
        except WorkReturned as error:
            return error.body()
        try:
            headers = {"Authorization": f"Bearer {running.token}"}
            answer = self._http.post(f"{running.url}/invocations", json=body, headers=headers)
        except httpx.ConnectError:
            return WorkReturned("The worker went away before it could be given this work.").body()
        except httpx.TransportError:
            return WorkerUnavailable("The worker went away while it had this work.").body()
        finally:
            with self._changed:
                worker.working -= 1
                self._changed.notify_all()
        return None if answer.is_success else _error_of(answer)

    def close(self) -> None:
        """Stop every worker for good; each may finish what it is doing within its drain time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        stopping = [threading.Thread(target=each.close, daemon=True) for each in self._workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def _taken(self) -> tuple[WorkerProcess, Running]:
        """The worker with the least to do, waited for while one starts; it has one more from now on. Raises
        WorkReturned where none can be had.
        """
        with self._changed:
            self._changed.wait_for(self._decided)
            ready = [(each, each.running) for each in self._workers if each.serves and each.running]
            if self._closing or not ready:
                raise WorkReturned(self.status().reason or "The worker is being stopped.")
            worker, running = min(ready, key=lambda it: (it[0].renewing, it[0].working, it[0].number))
            worker.working += 1
            return worker, running

    def _decided(self) -> bool:
        return self._closing or self.status().state in (EndpointState.IN_SERVICE, EndpointState.FAILED)

    def _mind(self) -> None:
        """Let quiet times end, and forget who has left."""
        with self._changed:
            while not self._closing:
                self._scale()
                self._changed.wait_for(lambda: self._closing, WATCH_SECONDS)

    def _scale(self) -> None:
        """Want as many workers as the demand asks for, the best that there are; the others finish and go."""
        if self._closing:
            return
        spec, now = self._spec, self._now()
        told = self._demand if now - self._told < DEMAND_SECONDS else 0
        asked = needed(max(told, self._expected), spec.parts_each, spec.min_instances, spec.max_instances)
        self._wanted = min(spec.max_instances, self._peak.note(now, asked, spec.idle_seconds))
        alive = sum(not each.away for each in self._workers)
        while len(self._workers) < self._wanted and alive < spec.max_instances:
            self._workers.append(self._another())
        order = sorted(
            self._workers, key=lambda each: (not each.wanted, _BEST_FIRST.index(each.state), each.number)
        )
        for index, each in enumerate(order):
            each.wanted = index < self._wanted
        self._changed.notify_all()

    def _another(self) -> WorkerProcess:
        taken = {each.number for each in self._workers}
        number = next(each for each in range(len(taken) + 1) if each not in taken)
        return WorkerProcess(self._spec, number, self._launch, self._data_dir, self._http, self._changed)


def _error_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()["error"]
        if isinstance(body, dict):
            return body
    except (ValueError, KeyError, TypeError):
        pass
    return WorkerUnavailable(f"The worker answered {answer.status_code} without a reason.").body()
