"""Endpoints as SageMaker's. AWS runs them, whoever of the portal's processes lives; what is here brings them
step by step to what their rows say.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from atelier.contract.errors import AtelierError, InvalidRequest, LimitExceeded, WorkReturned
from atelier.storage.base import BlobStore
from portal.adapters.aws import failures, instances, service_quotas
from portal.adapters.aws.calls import AsyncCalls, WaitingCalls, folders
from portal.adapters.aws.names import Names
from portal.adapters.aws.requests import Container, precisions, wanted
from portal.adapters.aws.sagemaker import BROKEN, IN_TRANSITION, Endpoints, Seen, status_of
from portal.adapters.aws.scaler import Scaler
from portal.adapters.aws.telling import Telling
from portal.aws_options import AwsOptions
from portal.services.ports import (
    Clock,
    Completion,
    EndpointKind,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    InstanceType,
    Metric,
    Outcome,
    Submission,
    TicketState,
)

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""So old may be what is known of an endpoint."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 1800.0
"""Until what AWS refused or could not give is tried again; doubling."""
TELL_SECONDS, QUIET_SECONDS = 8.0, 60.0
"""How often a demand is published that does not change: while there is one, and while there is none."""
CHANGES = "AWS puts a change in place; what runs goes on meanwhile."
WAITS = "A change waits until AWS is through with the last one."


@dataclass
class _Kept:
    """What this process knows of one endpoint. `scaled` is what its policies were made of last, `failed` why
    it could not be made, until `again`; `gone` that nothing of it is left.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    spec: EndpointSpec | None = None
    deleting: bool = False
    gone: bool = False
    seen: Seen | None = None
    looked: float = float("-inf")
    scaled: EndpointSpec | None = None
    broken: EndpointSpec | None = None
    failed: str = ""
    pause: float = FIRST_PAUSE
    again: float = float("-inf")
    note: str = ""
    asked: str = ""
    """The configuration that AWS was asked to put in place last."""
    short: str = ""
    """What of it the account's quota does not allow."""
    demand: tuple[int, int] | None = None
    told: float = float("-inf")


class SageMakerFleet:
    """Fleet on AWS. `client` gives a boto3 client by the name of its service; `job_key_arn` names the secret
    that signs jobs; `settings` are further ATELIER_ variables of workers; the end of calls that wait is told
    to `tell`.
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        options: AwsOptions,
        store: BlobStore,
        *,
        store_url: str,
        job_key_arn: str,
        clock: Clock,
        tell: Callable[[Completion], None],
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._names = Names(options.aws_prefix)
        self._endpoints = Endpoints(client("sagemaker"), self._names)
        self._quotas = client("service-quotas")
        cloudwatch = client("cloudwatch")
        self._telling = Telling(cloudwatch, store, self._names, clock)
        autoscaling = client("application-autoscaling")
        self._scaler = Scaler(autoscaling, cloudwatch, self._names, options.aws_tags)
        runtime = client("sagemaker-runtime")
        self._queue = AsyncCalls(runtime, store, self._names, clock)
        self._waiting = WaitingCalls(runtime, self._names, tell)
        self._container = Container(
            store_url,
            job_key_arn,
            dict(settings or {}),
            answers=lambda spec: store.location(folders(spec.name, custom=_custom(spec))[0]),
            failures=lambda spec: store.location(folders(spec.name, custom=_custom(spec))[1]),
        )
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def check(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        check(spec, self._names)

    def create(self, spec: EndpointSpec) -> None:
        """See Fleet. What AWS refuses is told by `describe`, and tried again after a while."""
        self.check(spec)
        kept = self._of(spec.name)
        with kept.lock:
            kept.spec, kept.deleting = spec, False
            kept.again, kept.pause, kept.looked = float("-inf"), FIRST_PAUSE, float("-inf")
            self._turn(spec.name, kept)

    def update(self, spec: EndpointSpec) -> None:
        """See Fleet. While AWS is at the last change, this one waits, and `describe` says so."""
        self.create(spec)

    def delete(self, name: str) -> None:
        """See Fleet."""
        kept = self._of(name)
        with kept.lock:
            kept.deleting, kept.spec, kept.looked = True, None, float("-inf")
            self._turn(name, kept)

    def release(self, name: str) -> None:
        """See Fleet. AWS runs it; this process forgets what it knew."""
        with self._lock:
            self._kept.pop(name, None)

    def describe(self, name: str) -> EndpointStatus:
        """See Fleet. What is to be done next about the endpoint is done on the way."""
        kept = self._of(name)
        with kept.lock:
            if self._clock.monotonic() - kept.looked >= LOOK_SECONDS:
                self._turn(name, kept)
            return self._status(name, kept)

    def demand(self, name: str, parts: int) -> None:
        """See Fleet. Published for the alarms, with the number of instances there are to be."""
        kept = self._of(name)
        with kept.lock:
            if kept.seen is None:
                return  # not looked at yet: a number that is not known must not move its instances
            # What is still being made has not been idle yet: with no instances nothing counts as too many.
            capacity = kept.seen.desired if kept.seen.status != "Creating" else 0
            value = (parts, capacity)
            passed = self._clock.monotonic() - kept.told
            if value == kept.demand and passed < (TELL_SECONDS if parts else QUIET_SECONDS):
                return
            try:
                self._telling.demand(name, *value)
            except (ClientError, BotoCoreError) as error:
                log.warning("%s", failures.translated(error, "publishing the demand").message)
                return
            kept.demand, kept.told = value, self._clock.monotonic()

    def offers(self) -> tuple[InstanceType, ...]:
        """See Fleet."""
        return instances.offers()

    def submit(self, submission: Submission) -> str:
        """See Fleet."""
        kept = self._of(submission.endpoint)
        if kept.seen is not None and kept.seen.status == "Creating":
            raise WorkReturned(f"The endpoint {submission.endpoint!r} is still being created.")
        if kept.spec is not None and EndpointKind(kept.spec.kind).waits:
            return self._waiting.submit(submission)
        return self._queue.submit(submission)

    def poll(self, ticket: str) -> TicketState:
        """See Fleet. Asynchronous tickets outlive the process; those of calls that wait do not."""
        return self._waiting.poll(ticket) if ticket.startswith("r-") else self._queue.poll(ticket)

    def ask(self, name: str, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """See Fleet."""
        return self._waiting.call(name, body, content_type, accept)

    def leave(self, name: str, key: str, content_type: str) -> str:
        """See Fleet."""
        return self._queue.send(name, key, content_type, key.rpartition("/")[2][-64:], custom=True).ticket

    def outcome(self, ticket: str) -> Outcome | None:
        """See Fleet."""
        return self._queue.outcome(ticket)

    def close(self) -> None:
        """See Fleet. AWS runs the endpoints, so there is nothing to let go of."""

    def _of(self, name: str) -> _Kept:
        with self._lock:
            return self._kept.setdefault(name, _Kept())

    def _turn(self, name: str, kept: _Kept) -> None:
        """Look at the endpoint, and do the next thing that its row asks for."""
        kept.note, kept.gone = "", False
        try:
            kept.seen = self._endpoints.see(name)
            kept.looked = self._clock.monotonic()
            if kept.deleting or (kept.spec is None and (not kept.seen or kept.seen.status == "Deleting")):
                # Also what another process had begun to delete, of which something may be left.
                self._unmake(name, kept)
            elif kept.spec is not None and self._clock.monotonic() >= kept.again:
                self._step(kept.spec, kept)
        except AtelierError as error:
            self._refused(kept, error)
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and failures.busy(error):
                kept.note = WAITS
                return
            self._refused(kept, failures.translated(error, f"looking after the endpoint {name!r}"))

    def _refused(self, kept: _Kept, error: AtelierError) -> None:
        log.warning("%s", error.message)
        if error.retryable:
            kept.note = error.message
            return
        kept.failed = error.message
        self._later(kept)

    def _later(self, kept: _Kept) -> None:
        kept.again = self._clock.monotonic() + kept.pause
        kept.pause = min(LONGEST_PAUSE, 2 * kept.pause)

    def _step(self, spec: EndpointSpec, kept: _Kept) -> None:
        seen = kept.seen
        if seen is None:
            kept.failed = ""
            self._look_at_quotas(spec, kept)
            made = wanted(spec, self._names, self._options, self._container)
            self._endpoints.make(made)
            kept.scaled, kept.asked = None, made.config["EndpointConfigName"]
            kept.seen = self._endpoints.see(spec.name)
        elif seen.status in BROKEN:
            self._mend(spec, kept, seen)
        elif seen.status in IN_TRANSITION or seen.status == "Deleting":
            self._await(spec, kept, seen)
        else:
            kept.failed = ""
            self._keep_in_service(spec, kept, seen)

    def _look_at_quotas(self, spec: EndpointSpec, kept: _Kept) -> None:
        """Before it is made: say what of it the account does not allow. What AWS cannot tell stops nobody."""
        try:
            known = service_quotas.read(self._quotas)
        except (ClientError, BotoCoreError) as error:
            log.warning("%s", failures.translated(error, "reading the account's quotas").message)
            return
        [kept.short] = service_quotas.findings(known, [spec]) or [""]
        quota = known.get(spec.instance_type)
        if kept.short and (quota is None or quota.most < max(1, spec.min_instances)):
            raise LimitExceeded(kept.short)

    def _await(self, spec: EndpointSpec, kept: _Kept, seen: Seen) -> None:
        """Say what has to wait while AWS is at something else."""
        made = wanted(spec, self._names, self._options, self._container)
        if seen.status == "Deleting":
            kept.note = "An endpoint of this name is still being deleted; this one is made afterwards."
        elif seen.config != (config := made.config["EndpointConfigName"]):
            kept.note = CHANGES if kept.asked == config else WAITS

    def _mend(self, spec: EndpointSpec, kept: _Kept, seen: Seen) -> None:
        """Make a broken endpoint anew: where AWS had no instances, after a while; else once its numbers are
        others, since the same would break again.
        """
        if kept.broken is None:
            kept.broken = spec
            self._later(kept)
            return
        if failures.lacks_capacity(seen.reason) or kept.broken != spec:
            kept.broken = None
            self._scaler.remove(spec.name)
            self._endpoints.delete(spec.name)

    def _keep_in_service(self, spec: EndpointSpec, kept: _Kept, seen: Seen) -> None:
        made = wanted(spec, self._names, self._options, self._container)
        config, model = made.config["EndpointConfigName"], made.model["ModelName"]
        if seen.config == config:
            kept.asked = ""
        elif kept.asked == config:
            self._taken_back(spec, kept, seen)
            return
        if seen.config != config:
            if self._endpoints.instance_type(seen.config) != spec.instance_type:
                # AWS changes the instance type only of what does not scale.
                self._scaler.remove(spec.name)
                kept.scaled = None
            # At zero there is nothing to keep: one instance comes up, and shows that the change works.
            self._endpoints.change(made, keep_count=seen.desired > 0)
            kept.asked, kept.note = config, CHANGES
            kept.seen = self._endpoints.see(spec.name)
        elif kept.scaled != spec:
            self._scaler.apply(spec, self._clock.now())
            self._endpoints.sweep(spec.name, (config, model))
            kept.scaled, kept.broken, kept.pause = spec, None, FIRST_PAUSE

    def _taken_back(self, spec: EndpointSpec, kept: _Kept, seen: Seen) -> None:
        """Let what was there before go on, and scale, and try the change again after the longest pause: the
        same would fail again, until somebody asks for something else (`create`).
        """
        why = failures.explained(seen.reason, spec.instance_type, self._names.endpoint(spec.name))
        minutes = f"{LONGEST_PAUSE / 60:.0f} minutes"
        kept.failed = f"AWS took the last change back, and what was there before goes on. {why}"
        kept.failed += f" Change its settings to try at once; the same is tried again in {minutes}."
        kept.asked, kept.pause = "", LONGEST_PAUSE
        self._later(kept)
        if kept.scaled is None:
            self._scaler.apply(spec, self._clock.now())

    def _unmake(self, name: str, kept: _Kept) -> None:
        """The next thing on the way to nothing."""
        self._scaler.remove(name)
        kept.scaled = None
        kept.failed = ""
        if kept.seen is None:
            self._endpoints.sweep(name)
            kept.gone = True
        elif kept.seen.status in IN_TRANSITION:
            kept.note = "AWS deletes it once it is through with the last change."
        elif kept.seen.status != "Deleting":
            self._endpoints.delete(name)
            kept.seen = self._endpoints.see(name)
            if kept.seen is None:
                self._endpoints.sweep(name)
                kept.gone = True

    def _status(self, name: str, kept: _Kept) -> EndpointStatus:
        seen = kept.seen
        if kept.deleting or kept.gone:
            state = EndpointState.DELETED if kept.gone else EndpointState.DELETING
            return EndpointStatus(state, reason=kept.failed, note=kept.note)
        if seen is None or (seen.status == "Deleting" and kept.spec is not None):
            # What is wanted is never told to be going: its row would go with it.
            state = EndpointState.FAILED if kept.failed else EndpointState.CREATING
            return EndpointStatus(state, reason=kept.failed, note=kept.note)
        kind = kept.spec.instance_type if kept.spec else "instance"
        told = failures.explained(seen.reason, kind, self._names.endpoint(name)) if seen.reason else ""
        # What serves may bear the reason of an older failure.
        said = told or kept.failed if seen.status in BROKEN else kept.failed or told
        return status_of(seen, said, " ".join(filter(None, (kept.note, kept.short))))


def _custom(spec: EndpointSpec) -> bool:
    return EndpointKind(spec.kind).custom


def check(spec: EndpointSpec, names: Names) -> None:
    """Raise InvalidRequest for what SageMaker cannot make, or not so."""
    names.endpoint(spec.name)
    kind, waits = EndpointKind(spec.kind), EndpointKind(spec.kind).waits
    offer = instances.offered(spec.instance_type)
    if offer is None:
        known = ", ".join(each.name for each in instances.offers())
        raise InvalidRequest(
            f"An endpoint on AWS needs an instance_type. There are: {known}.",
            detail={"field": "instance_type"},
        )
    if waits and spec.min_instances < 1:
        raise InvalidRequest(
            "A realtime endpoint cannot be at zero: its callers wait. Let min_instances be 1 or more, "
            "or let its kind be asynchronous.",
            detail={"field": "min_instances"},
        )
    if (spec.metric == Metric.INVOCATIONS) is not waits and spec.metric != Metric.DEMAND:
        has = "invocations" if waits else "backlog"
        raise InvalidRequest(
            f"SageMaker has no such metric of this kind of endpoint. Choose demand or {has}.",
            detail={"field": "metric"},
        )
    dtype, allowed = spec.options.get("dtype", "auto"), precisions(offer)
    if not kind.custom and dtype not in ("auto", *allowed):
        raise InvalidRequest(
            f"{offer.gpu} GPUs do not compute in {dtype}. {offer.name} takes {' or '.join(allowed)}.",
            detail={"field": "options"},
        )
    if kind.custom and spec.metric == Metric.DEMAND:
        raise InvalidRequest(
            "The portal sends no parts to a custom endpoint, so it has no demand to scale by. "
            f"Let its metric be {'invocations' if waits else 'backlog'}.",
            detail={"field": "metric"},
        )
    if spec.slots > 1000:
        raise LimitExceeded("SageMaker gives an instance at most 1000 bodies at once.")
