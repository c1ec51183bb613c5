"""Accepting a job: everything that can be wrong is said now, and what is accepted is durable before the
answer leaves.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from atelier import answer
from atelier.contract import canonical
from atelier.contract.errors import Conflict, InvalidRequest, NotPermitted, TooManyRequests, UnknownName
from atelier.contract.jobs import JobRequest, JobState, PartState
from atelier.contract.parts import Task
from atelier.ownoptions import AUTOMATIC, ENDPOINT, OWN
from atelier.resolve import Resolution, parse_payload, resolve_txt2img
from atelier.resolve.members import lifted
from atelier.seeds import draw_seed
from portal.db.base import Database, new_id
from portal.db.identity import User
from portal.db.work import AnswerDue, Endpoint, IdempotencyKey, Job, Part
from portal.domain.effort import effort
from portal.domain.states import UNFINISHED_JOBS
from portal.services import audit, model_presence, wire_requests
from portal.services.access import endpoints_of, takes_parts
from portal.services.callers import Caller
from portal.services.changes import WORK, Changes
from portal.services.dispatch_watch import IDEMPOTENCY_SECONDS
from portal.services.models import catalogue
from portal.services.placing import placed
from portal.services.ports import Clock, InstanceType
from portal.services.quotas import Quotas
from portal.services.setting_layers import Standing, standing
from portal.services.wire_requests import Wish

log = logging.getLogger(__name__)

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes it; an even number of backslashes before it is text about it."""


@dataclass(frozen=True)
class Limits:
    """Back-pressure: jobs not yet final, of one user and altogether, before the answer is "come again"."""

    per_user: int = 50
    altogether: int = 5_000


@dataclass(frozen=True)
class Ready:
    """A request that can be carried out: the endpoint it asked for (None for automatic) and its parts."""

    endpoint: str | None
    resolution: Resolution


class Acceptance:
    """Turns requests into jobs, in one transaction each."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        changes: Changes,
        quotas: Quotas,
        limits: Limits | None = None,
        keep: Callable[[Caller, str], str] | None = None,
        offers: Callable[[], Iterable[InstanceType]] = tuple,
        draw: Callable[[], int] = draw_seed,
    ) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._quotas = quotas
        self._limits = limits or Limits()
        self._draw = draw
        self._keep = keep or no_inputs
        self._offers = offers
        self._counted = itertools.count(1)
        self.accepted = 0
        """Jobs accepted since this process started."""

    def accept(
        self,
        caller: Caller,
        request: JobRequest,
        *,
        idempotency_key: str | None = None,
        origin: audit.Origin | None = None,
        answering: bool = False,
        wish: Wish | None = None,
    ) -> str:
        """The id of the accepted job. Raises InvalidRequest and its kin (422), Conflict (a key used for
        another body), TooManyRequests, QuotaExceeded.

        `answering`: the pictures are the answer of the peer's API; see resolve_txt2img. `wish`: how its
        answer is put into the store once it is done. With a key the user has sent in the last 24 hours and
        the same body, it is the job that was made then.
        """
        _check_text(request)
        told = request.model_dump(mode="json") | ({"wish": wish.told()} if wish else {})
        body_hash = canonical.sha256(told)
        with self._database.reading() as session:
            known = self._known(session, caller, idempotency_key, body_hash)
            if known is not None:
                return known
            self.leave_room(session, caller.user_id)
        request = self._lifted(caller, request)
        with self._database.reading() as session:
            ready = self._resolve(session, caller.user_id, request, answering or wish is not None, wish)
        try:
            with self._database.session() as session:
                known = self._known(session, caller, idempotency_key, body_hash)
                if known is not None:
                    return known
                self.take_room(session, caller.user_id)
                self._quotas.demand(session, caller.user_id, _pictures(ready))
                job_id, parts = self._insert(session, caller, request, ready, origin or audit.Origin())
                if wish is not None:
                    session.add(AnswerDue(job_id=job_id, form=wish.form, output=wish.output))
                if idempotency_key is not None:
                    self._remember(session, caller, idempotency_key, body_hash, job_id)
        except IntegrityError:
            # Another request with the same key was faster: its job is the answer.
            with self._database.reading() as session:
                known = self._known(session, caller, idempotency_key, body_hash)
            if known is None:
                raise
            return known
        self.accepted = next(self._counted)
        log.info("job accepted", extra={"job_id": job_id, "parts": parts})
        self._changes.notify(WORK)
        return job_id

    def _lifted(self, caller: Caller, request: JobRequest) -> JobRequest:
        """The request with its pictures stored, and their ids in their place: rows and messages hold none."""
        payload = lifted(request.txt2img_payload, partial(self._keep, caller))
        return request.model_copy(update={"txt2img_payload": payload})

    def _known(self, session: Session, caller: Caller, key: str | None, body_hash: str) -> str | None:
        if key is None:
            return None
        row = session.get(IdempotencyKey, (caller.user_id, _checked(key)))
        if row is None:
            return None
        if row.created < self._clock.now() - IDEMPOTENCY_SECONDS:
            return None
        if row.body_hash != body_hash:
            raise Conflict(
                "This Idempotency-Key was used for another request. Use a new key for a new request.",
                detail={"job": row.job_id},
            )
        return row.job_id

    def _remember(self, session: Session, caller: Caller, key: str, body_hash: str, job_id: str) -> None:
        """Bind the key to the job. Only a row too old to count gives way: a fresh one is another request's,
        and wins.
        """
        now = self._clock.now()
        too_old = IdempotencyKey.created < now - IDEMPOTENCY_SECONDS
        mine = (IdempotencyKey.owner_id == caller.user_id, IdempotencyKey.key == key)
        session.execute(delete(IdempotencyKey).where(*mine, too_old))
        session.add(
            IdempotencyKey(owner_id=caller.user_id, key=key, body_hash=body_hash, job_id=job_id, created=now)
        )

    def _insert(
        self, session: Session, caller: Caller, request: JobRequest, ready: Ready, origin: audit.Origin
    ) -> tuple[str, list[str]]:
        """The job's id and those of its parts."""
        now, resolution = self._clock.now(), ready.resolution
        job = Job(
            id=new_id(),
            owner_id=caller.user_id,
            task=request.task,
            state=JobState.QUEUED.value,
            endpoint=ready.endpoint,
            priority=request.priority,
            model=resolution.parts[0].checkpoint.title,
            request=resolution.payload.model_dump(mode="json"),
            info=answer.info(resolution, [], started=now),
            arrangement=resolution.arrangement.model_dump(mode="json"),
            grids_due=bool(resolution.arrangement.grids),
            version=1,
            created=now,
        )
        session.add(job)
        session.flush()
        parts = _parts(job, resolution)
        session.add_all(parts)
        counts = {
            "task": request.task,
            "parts": len(resolution.parts),
            "pictures": _pictures(ready),
        }
        audit.record(
            session,
            caller,
            "job.accept",
            f"job:{job.id}",
            origin=origin,
            details=counts,
        )
        return job.id, [part.id for part in parts]

    def _resolve(
        self, session: Session, user_id: str, request: JobRequest, answering: bool, wish: Wish | None
    ) -> Ready:
        if request.task != Task.TEXT_TO_IMAGE:
            raise UnknownName.of("task", request.task, [task.value for task in Task])
        payload = parse_payload(request.txt2img_payload)
        held = standing(session, user_id)
        endpoint = _chosen(session, user_id, request, held)
        models = catalogue(session, user_id)
        settings = {name: value for name, value in held.values.items() if name not in OWN}
        if wish is not None and wish.plain is not None:
            resolution = wire_requests.resolve(
                wish.plain, request, models, settings=settings, locked=held.locks, draw=self._draw
            )
        else:
            resolution = resolve_txt2img(
                payload,
                models,
                model=request.model,
                settings=settings,
                locked=held.locks,
                draw=self._draw,
                answering=answering,
            )
        if wish is not None:
            resolution = replace(resolution, ignored=(*resolution.ignored, *wish.ignored))
        model_presence.check(session, resolution.parts)
        endpoint = placed(session, user_id, endpoint, resolution.parts, self._offers())
        return Ready(endpoint, resolution)

    def take_room(self, session: Session, user_id: str) -> None:
        """As `leave_room`, in the transaction that makes a job: of two at once for a user's last place, one
        gets it.
        """
        session.get(User, user_id, with_for_update={"key_share": True})
        self.leave_room(session, user_id)

    def leave_room(self, session: Session, user_id: str) -> None:
        """Raise TooManyRequests where the user, or everybody together, has as many unfinished jobs as may
        be.
        """
        own = (
            session.scalar(
                select(func.count()).where(Job.owner_id == user_id, Job.state.in_(UNFINISHED_JOBS))
            )
            or 0
        )
        everybody = session.scalar(select(func.count()).where(Job.state.in_(UNFINISHED_JOBS))) or 0
        if own >= self._limits.per_user or everybody >= self._limits.altogether:
            whose = (
                f"You have {own} unfinished jobs"
                if own >= self._limits.per_user
                else "The studio's queue is full"
            )
            raise TooManyRequests(
                f"{whose}. Wait for one to end, or cancel one, then send this again.",
                detail={"retry_after": 10},
            )


def no_inputs(_caller: Caller, _text: str) -> str:
    """Where there is no store for pictures."""
    raise ValueError("pictures are not taken here")


def _pictures(ready: Ready) -> int:
    """How many pictures the request makes."""
    return sum(part.batch_size for part in ready.resolution.parts)


def _check_text(request: JobRequest) -> None:
    """InvalidRequest for what no file and no database can hold: half a character (a lone surrogate), the
    character NUL, a number that is none, lists in lists without end.
    """
    try:
        request.model_dump(mode="json")  # has a limit of its own for what is nested
        text = json.dumps(request.model_dump(), ensure_ascii=False, allow_nan=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The request holds half a character (a lone surrogate such as \\ud800). Send whole characters."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            "The request holds a number that is none (NaN, Infinity), or is nested deeper than any request "
            "needs. Send finite numbers and flat lists."
        ) from error
    if _NUL.search(text):
        raise InvalidRequest("The request holds the character NUL, which no text can have. Take it out.")


def _parts(job: Job, resolution: Resolution) -> list[Part]:
    """The rows of a job's parts. Their ordinals are the order of dispatch, their first indices that of the
    pictures.
    """
    rows, first = [], 0
    ordinals = {part: ordinal for ordinal, part in enumerate(resolution.dispatch)}
    for number, part in enumerate(resolution.parts):
        asked = effort(part)
        rows.append(
            Part(
                id=new_id(),
                job_id=job.id,
                owner_id=job.owner_id,
                ordinal=ordinals.get(number, number),
                first_index=first,
                state=PartState.QUEUED.value,
                created=job.created,
                wanted_endpoint=job.endpoint,
                checkpoint_blob=part.checkpoint.blob_sha256,
                resolved=part.model_dump(mode="json"),
                recipe_hash=part.recipe_hash,
                pictures=part.batch_size,
                priority=job.priority,
                work=asked.work,
                shape=asked.shape,
            )
        )
        first += part.batch_size
    return rows


def _chosen(session: Session, user_id: str, request: JobRequest, held: Standing) -> str | None:
    """The endpoint of a request: the locked one, the one it names, else the one of the settings, if that is
    there for the user; None for automatic. Raises UnknownName, NotPermitted.
    """
    standard = str(held.values.get(ENDPOINT, AUTOMATIC))
    if ENDPOINT in held.locks:
        return _endpoint(session, user_id, standard)
    if "endpoint" in request.model_fields_set:
        return _endpoint(session, user_id, request.endpoint)
    there = standard in endpoints_of(session, user_id)
    return _endpoint(session, user_id, standard if there else AUTOMATIC)


def _endpoint(session: Session, user_id: str, wanted: str) -> str | None:
    every = session.scalar(select(Endpoint.name).where(takes_parts()).limit(1))
    names = endpoints_of(session, user_id)
    if wanted == AUTOMATIC and (names or not every):
        return None
    if not names and every:
        raise NotPermitted("You may not use any of the studio's endpoints. Ask an administrator.")
    if wanted not in names:
        raise UnknownName.of("endpoint", wanted, [AUTOMATIC, *names])
    return wanted


def _checked(key: str) -> str:
    if not 1 <= len(key) <= 200:
        raise InvalidRequest("An Idempotency-Key has from 1 to 200 characters.")
    return key
