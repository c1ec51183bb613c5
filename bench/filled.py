"""A database as a studio has it after a year: people, models, finished jobs with their pictures, a long audit
trail, and a queue. The rows are copies of those that the services themselves write.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import JobRequest
from atelier.contract.models import ModelKind
from portal.bootstrap import AUDIT_KEY
from portal.db.audit import AuditEntry, AuditHead
from portal.db.base import Base, new_id
from portal.db.identity import User
from portal.db.work import Attempt, Endpoint, Job, Model, Part, Picture
from portal.domain import chain
from portal.services import audit
from portal.services.callers import Caller
from portal.services.container import Services
from portal.services.models import ModelFile
from portal.services.permissions import ROLES
from portal.services.ports import EndpointSpec

CHECKPOINT = Path(__file__).resolve().parents[1] / "models" / "atelier-demo.safetensors"
CHUNK = 2000
YEAR = 365 * 86_400.0
PAYLOAD: dict[str, Any] = {
    "prompt": "a red circle on a blue background, " * 6,
    "negative_prompt": "blurred, noisy",
    "steps": 20,
    "width": 128,
    "height": 128,
    "seed": 1,
}


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    users: int = 100
    models: int = 200
    finished: int = 100_000
    queued: int = 500
    audit: int = 100_000


def fill(services: Services, amounts: Amounts) -> Caller:
    """Fill the migrated, empty database. Returns the user with the most jobs, an administrator."""
    chance = random.Random(1)  # noqa: S311  # figures, not secrets
    callers = _people(services, amounts.users)
    services.work.models.register(audit.SYSTEM, ModelFile(CHECKPOINT, ModelKind.CHECKPOINT, link=True))
    services.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
    request = JobRequest(txt2img_payload=PAYLOAD)
    samples = [services.work.acceptance.accept(callers[0], request) for _ in range(1)]
    with services.database.session() as session:
        job = _row(session.get_one(Job, samples[0]))
        part = _row(session.scalars(select(Part).where(Part.job_id == samples[0])).one())
        model = _row(session.scalars(select(Model)).one())
        endpoint = session.scalars(select(Endpoint)).one()
        endpoint.state, endpoint.instances = "in_service", 1
        for number in range(amounts.models):
            named = {"id": new_id(), "name": f"model {number}", "filename": f"model-{number}.safetensors"}
            session.execute(insert(Model), [{**model, **named, "standard": False, "source": None}])
    owners = [callers[0].user_id] * 10 + [each.user_id for each in callers]
    _finished(services, job, part, owners, amounts.finished, chance)
    _waiting(services, job, part, owners, amounts.queued, chance)
    _trail(services, callers, amounts.audit, chance)
    if not services.database.is_sqlite:
        with services.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session_:
            session_.exec_driver_sql("VACUUM ANALYZE")
    return callers[0]


def _people(services: Services, users: int) -> list[Caller]:
    callers = []
    with services.database.session() as session:
        for number in range(users):
            role = "admin" if number == 0 else "designer"
            name = f"user{number:04d}"
            row = User(id=new_id(), username=name, password_hash="-", created_at=number * 1.0, settings={})  # noqa: S106
            row.hold([role])
            session.add(row)
            callers.append(Caller(row.id, name, (role,), ROLES[role]))
    return callers


def _row(row: Base) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.c}


def _finished(
    services: Services,
    job: dict[str, Any],
    part: dict[str, Any],
    owners: list[str],
    number: int,
    chance: random.Random,
) -> None:
    """Jobs of one part and one picture, most of which succeeded, over a year."""
    begin = services.clock.now() - YEAR
    for start in range(0, number, CHUNK):
        rows: dict[type[Base], list[dict[str, Any]]] = {Job: [], Part: [], Attempt: [], Picture: []}
        for each in range(start, min(number, start + CHUNK)):
            at, owner = begin + YEAR * each / number, chance.choice(owners)
            state = chance.choices(("succeeded", "failed", "stopped", "cancelled"), (94, 3, 2, 1))[0]
            ids = {"job_id": new_id(), "part_id": new_id(), "owner_id": owner}
            rows[Job].append(
                job
                | {"id": ids["job_id"], "owner_id": owner, "state": state, "created": at, "finished": at + 9}
            )
            own = {"id": ids["part_id"], "job_id": ids["job_id"], "owner_id": owner, "created": at}
            rows[Part].append(part | own | {"state": state, "attempt": 1, "endpoint": "local"})
            rows[Attempt].append(_attempt(ids, at, state))
            rows[Picture].append(_picture(ids, at, each))
        with services.database.session() as session:
            for table, these in rows.items():
                session.execute(insert(table), these)


def _attempt(ids: dict[str, str], at: float, outcome: str) -> dict[str, Any]:
    return {
        "id": new_id(),
        **ids,
        "number": 1,
        "endpoint": "local",
        "open": False,
        "outcome": outcome,
        "started": at + 1,
        "ended": at + 9,
        "lease_until": at + 31,
        "worked": 8.0,
    }


def _picture(ids: dict[str, str], at: float, number: int) -> dict[str, Any]:
    return {
        "id": new_id(),
        **ids,
        "index": 0,
        "key": f"jobs/{ids['job_id']}/{ids['part_id']}/1/0.png",
        "sha256": f"{number:064x}",
        "size": 20_000,
        "width": 128,
        "height": 128,
        "seed": str(number),
        "subseed": "0",
        "infotext": PAYLOAD["prompt"] + "\nSteps: 20, Sampler: Euler, CFG scale: 7.0, Size: 128x128",
        "recipe_hash": f"{number:064x}",
        "created": at + 9,
    }


def _waiting(
    services: Services,
    job: dict[str, Any],
    part: dict[str, Any],
    owners: list[str],
    number: int,
    chance: random.Random,
) -> None:
    """Queued parts, five to a job."""
    now = services.clock.now()
    with services.database.session() as session:
        for start in range(0, number, 5):
            job_id, owner = new_id(), chance.choice(owners)
            session.execute(insert(Job), [job | {"id": job_id, "owner_id": owner, "created": now}])
            own = {"job_id": job_id, "owner_id": owner, "created": now}
            few = range(min(5, number - start))
            session.execute(
                insert(Part),
                [part | own | {"id": new_id(), "ordinal": each, "first_index": each} for each in few],
            )


def _trail(services: Services, callers: list[Caller], number: int, chance: random.Random) -> None:
    """Entries that are sealed as the real ones are: the trail can be verified."""
    key = services.secrets.get(AUDIT_KEY)
    begin = services.clock.now() - YEAR
    with services.database.session() as session:
        head = session.get_one(AuditHead, 1)
        for rows in _chunks(_entries(session, head, key, callers, number, begin, chance)):
            session.execute(insert(AuditEntry), rows)


def _entries(
    session: Session,
    head: AuditHead,
    key: bytes,
    callers: list[Caller],
    number: int,
    begin: float,
    chance: random.Random,
) -> Iterator[dict[str, Any]]:
    actions = ("job.accept", "job.cancel", "login", "login.failed", "model.change", "user.change")
    for each in range(number):
        caller, action = chance.choice(callers), chance.choice(actions)
        entry = {
            "at": begin + YEAR * each / number,
            "actor_id": caller.user_id,
            "actor_name": caller.username,
            "subject": callers[1].username if each % 1000 == 0 else "",
            "action": action,
            "object": f"{action.split('.')[0]}:{each}",
            "result": "refused" if action == "login.failed" else "done",
            "request_id": f"{each:016x}",
            "ip": "10.0.0.1",
            "user_agent": "Mozilla/5.0",
            "details": {"parts": 1},
        }
        head.count += 1
        entry["id"] = head.count
        head.hash = chain.seal(key, head.hash, entry)
        yield {**entry, "hash": head.hash}


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
