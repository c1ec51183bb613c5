"""What there is to say of a job that is not done: whether it waits, for what, and for how long yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import JobState, PartState
from portal.db.work import Attempt, Endpoint, Job, Part
from portal.services.estimates import Estimates, Measured
from portal.services.job_queue import Queue
from portal.services.ports import EndpointState
from portal.services.progress import Seen

LOADING = "loading"
_RUNNING = "running"


@dataclass(frozen=True)
class Open:
    """An open attempt: where it is, since when, and whether a worker had to be started for it."""

    endpoint: str
    started: float
    woke: bool


@dataclass(frozen=True)
class Outlook:
    """What several jobs' views are told from, read once for all of them."""

    queue: Queue = field(default_factory=Queue)
    measured: Measured = field(default_factory=Measured)
    open: Mapping[str, Open] = field(default_factory=dict)
    """By part."""
    states: Mapping[str, str] = field(default_factory=dict)
    """Of the endpoints, by name."""
    flying: float = 0.0
    """The work that is out to workers, of everybody."""

    @classmethod
    def of(cls, session: Session, estimates: Estimates, jobs: Sequence[Job]) -> Outlook:
        """The outlook for those of `jobs` that are not final; nothing is read where all are."""
        waiting = [job.id for job in jobs if not JobState(job.state).final]
        if not waiting:
            return cls()
        rows = session.execute(
            select(Attempt.part_id, Attempt.endpoint, Attempt.started, Attempt.woke).where(
                Attempt.open, Attempt.job_id.in_(waiting)
            )
        )
        flying = select(func.sum(Part.work)).join(Attempt, Attempt.part_id == Part.id).where(Attempt.open)
        return cls(
            queue=Queue.of(session),
            measured=estimates.measured(session),
            open={row[0]: Open(*row[1:]) for row in rows},
            states={name: state for name, state in session.execute(select(Endpoint.name, Endpoint.state))},
            flying=session.scalar(flying) or 0.0,
        )

    def waking(self, part: Part, seen: Seen | None) -> str | None:
        """The endpoint that a worker is being started on for a part that was sent; None where one has it, or
        serves.
        """
        it = self.open.get(part.id)
        if it is None or not it.woke or (seen is not None and seen.state is not None):
            return None
        return it.endpoint if self.states.get(it.endpoint) != EndpointState.IN_SERVICE else None


@dataclass(frozen=True)
class Waiting:
    """What a job does now: a phase and a sentence about it, and the seconds until it is done, None where
    nothing like it was measured.
    """

    phase: str
    note: str = ""
    eta_s: float | None = None


def told(
    job: Job, state: JobState, parts: Sequence[Part], seen: Mapping[str, Seen], outlook: Outlook, now: float
) -> Waiting:
    """What a job that is not final does now."""
    position = outlook.queue.position(job.id)
    newest = max((each.state for each in seen.values() if each.state), key=lambda each: each.at, default=None)
    eta = _eta(job, parts, seen, outlook, now)
    if newest is not None:
        loads = newest.phase == LOADING
        return Waiting(newest.phase, f"Loading {_model(job)}." if loads else "", eta)
    if state is JobState.RUNNING:
        return Waiting(_RUNNING, "", eta)
    if state is JobState.WAKING:
        return Waiting(state.value, _waking(parts, seen, outlook), eta)
    if position is None:
        return Waiting(state.value, "Sent to a worker that has not begun yet.", eta)
    return Waiting(state.value, f"Waiting: {position - 1} in front." if position > 1 else "", eta)


def _model(job: Job) -> str:
    """The model's name without the hash behind it."""
    return (job.model or "the model").split(" [")[0]


def _waking(parts: Sequence[Part], seen: Mapping[str, Seen], outlook: Outlook) -> str:
    names = [name for part in parts if (name := outlook.waking(part, seen.get(part.id)))]
    usual = outlook.measured.waking.get(names[0]) if names else None
    where = f" on {names[0]}" if names else ""
    long = f"usually takes {usual:.0f} s" if usual is not None else "takes a moment longer than usual"
    return f"A worker is being started{where}; that {long}."


def _eta(
    job: Job, parts: Sequence[Part], seen: Mapping[str, Seen], outlook: Outlook, now: float
) -> float | None:
    """Seconds until the job's last part is done; None where one of them has nothing to be judged by."""
    rests = [_rest(part, seen.get(part.id), outlook, now) for part in parts if part.id in outlook.open]
    queued = [part for part in parts if part.state == PartState.QUEUED]
    if queued:
        rests.append(_queued(job, queued[-1], outlook))
    known = [rest for rest in rests if rest is not None]
    return round(max(known), 1) if known and len(known) == len(rests) else None


def _rest(part: Part, seen: Seen | None, outlook: Outlook, now: float) -> float | None:
    """Seconds of a part that was sent: by what its kind took, the more by its own pace the further it is."""
    it, measured = outlook.open[part.id], outlook.measured
    usual = measured.computing(it.endpoint, part.shape, part.work)
    done, pace = (seen.fraction, seen.pace) if seen is not None else (0.0, None)
    if pace is not None:
        own = (1.0 - done) / pace
        return own if usual is None else done * own + (1.0 - done) * (1.0 - done) * usual
    if usual is None:
        return None
    rest = (1.0 - done) * usual
    if outlook.waking(part, seen):
        waking = measured.waking.get(it.endpoint)
        if waking is None:
            return None  # how long a worker takes to come up is not known yet
        rest += max(0.0, it.started + waking - now) + measured.loading.get(it.endpoint, 0.0)
    elif seen is not None and seen.state is not None and seen.state.phase == LOADING:
        rest += max(0.0, seen.begun + measured.loading.get(it.endpoint, 0.0) - now)
    return rest


def _queued(job: Job, last: Part, outlook: Outlook) -> float | None:
    """Seconds until the last waiting part of a job is done: what is sent before it, half of what is out, and
    itself.
    """
    measured = outlook.measured
    able = [name for name, state in outlook.states.items() if state == EndpointState.IN_SERVICE]
    chosen = [name for name in able if last.wanted_endpoint in (None, name)]
    rate = measured.together(chosen)
    itself = [
        each for name in chosen if (each := measured.computing(name, last.shape, last.work)) is not None
    ]
    if rate is None or not itself:
        return None
    return (outlook.queue.ahead(job.id) + outlook.flying / 2) / rate + min(itself)
