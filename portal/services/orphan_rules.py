"""Which blobs are nobody's, by the beginning of their keys. What a rule does not know stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Text, cast, or_, select
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.jobs import JobState
from atelier.storage.base import BlobStat
from portal.db.work import Attempt, Endpoint, Job, Model, Part, Picture, RetiredBlob
from portal.services.completion import VISIBLE

MODELS = "models/"
KEPT: Mapping[str, float] = {keys.CUSTOM: 7 * 86_400.0}
"""For how many seconds more some blobs stay: somebody may fetch them."""
Rule = Callable[[Session, Sequence[BlobStat]], list[BlobStat]]
"""(session, blobs that are old enough) -> those of them that nobody will ever see."""


def of_jobs(session: Session, blobs: Sequence[BlobStat]) -> list[BlobStat]:
    """All of jobs that are gone; of the others attempts that never became visible, and what the work itself
    needed once it is done. Pictures that are shown and their results stay.
    """
    split = [blob.key.split("/") for blob in blobs]
    ids = {words[1] for words in split}
    parts = {words[2] for words in split if len(words) > 3}
    jobs = {
        row.id: row
        for row in session.execute(select(Job.id, Job.state, Job.grids_due).where(Job.id.in_(ids)))
    }
    tried = select(Attempt.part_id, Attempt.number, Attempt.open, Attempt.outcome)
    attempts = {
        (row.part_id, str(row.number)): row
        for row in session.execute(tried.where(Attempt.part_id.in_(parts)))
    }
    shown = set(session.scalars(select(Picture.key).where(Picture.job_id.in_(ids))))
    return [blob for blob in blobs if blob.key not in shown and not _kept(blob.key, jobs, attempts)]


def _kept(key: str, jobs: Mapping[str, Any], attempts: Mapping[tuple[str, str], Any]) -> bool:
    """Whether a blob of a job that is no picture anybody sees is needed all the same."""
    _, job_id, *rest = key.split("/")
    job = jobs.get(job_id)
    if job is None:
        return False
    done = JobState(job.state).final
    match rest:
        case [name]:
            return not (name.startswith("grid-") and done and not job.grids_due)
        case [_, "control.json"]:
            return not done
        case [part, number, name] if number.isdigit():
            attempt = attempts.get((part, number))
            if attempt is None or attempt.open:
                return attempt is not None
            return attempt.outcome in VISIBLE and name == "result.json"
    return True


def of_models(session: Session, blobs: Sequence[BlobStat]) -> list[BlobStat]:
    """Files that no model is, and that are not being retired already."""
    hashes = [blob.key.removeprefix(MODELS) for blob in blobs]
    ours = or_(Model.blob_sha256.in_(hashes), Model.config_sha256.in_(hashes))
    named = {
        each
        for row in session.execute(select(Model.blob_sha256, Model.config_sha256).where(ours))
        for each in row
    }
    named |= set(session.scalars(select(RetiredBlob.sha256).where(RetiredBlob.sha256.in_(hashes))))
    return [blob for blob, sha256 in zip(blobs, hashes, strict=True) if sha256 not in named]


def of_previews(session: Session, blobs: Sequence[BlobStat]) -> list[BlobStat]:
    """Previews that no model has."""
    hashes = [_last(blob) for blob in blobs]
    named = set(session.scalars(select(Model.preview_sha256).where(Model.preview_sha256.in_(hashes))))
    return [blob for blob, sha256 in zip(blobs, hashes, strict=True) if sha256 not in named]


def of_inputs(session: Session, blobs: Sequence[BlobStat]) -> list[BlobStat]:
    """Inputs that no job names."""

    def named(blob: BlobStat) -> bool:
        request = select(Job.id).where(cast(Job.request, Text).contains(_last(blob), autoescape=True))
        resolved = select(Part.id).where(cast(Part.resolved, Text).contains(_last(blob), autoescape=True))
        return any(session.scalar(query.limit(1)) is not None for query in (request, resolved))

    return [blob for blob in blobs if not named(blob)]


def of_endpoints(session: Session, blobs: Sequence[BlobStat]) -> list[BlobStat]:
    """Catalogues and open actions of endpoints that are gone."""
    names = [_last(blob).removesuffix(".json") for blob in blobs]
    there = set(session.scalars(select(Endpoint.name).where(Endpoint.name.in_(names))))
    return [blob for blob, name in zip(blobs, names, strict=True) if name not in there]


def all_of_them(_session: Session, blobs: Sequence[BlobStat]) -> list[BlobStat]:
    """What is fetched or written anew within minutes: what a CPU task made and what its platform calls it,
    what a worker says of itself, what SageMaker notes of calls that ended.
    """
    return list(blobs)


def _last(blob: BlobStat) -> str:
    return blob.key.rsplit("/", 1)[-1]


RULES: Mapping[str, Rule] = {
    "jobs/": of_jobs,
    MODELS: of_models,
    "previews/": of_previews,
    "assets/": of_inputs,
    "tasks/": all_of_them,
    "imports/": all_of_them,
    "endpoints/": all_of_them,
    "async/": all_of_them,
    keys.CUSTOM: all_of_them,
    "health/": all_of_them,
    "catalogue/": of_endpoints,
    "control/": of_endpoints,
}
