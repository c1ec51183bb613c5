"""Answers that somebody fetches: a job of /inference leaves its answer in the store, in the form of its
request, as an asynchronous endpoint of SageMaker does.

Written once the job is final, by the leader or by whoever asks first, in one process by one of them alone.
Two processes that write at the same time write the same bytes; the row that says that an answer is due goes
last.
"""

from __future__ import annotations

import base64
import json
import logging
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from weakref import WeakValueDictionary

from sqlalchemy import delete, select

from atelier.contract import keys
from atelier.contract.errors import AtelierError, JobFailed, NotFound, from_body
from atelier.contract.jobs import JobState, JobView, PictureView
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import AnswerDue, Job
from portal.domain.states import UNFINISHED_JOBS
from portal.services import peer_answers
from portal.services.callers import Caller
from portal.services.failures import failure
from portal.services.files import Files
from portal.services.jobs import Jobs

log = logging.getLogger(__name__)

BATCH = 20
"""Answers written in one round of the leader, at most."""
ROUND_BYTES = 16 * 2**20
"""A round ends with the answer that makes it so many: what else the leader looks after goes on."""
JSON = "application/json"
_FINAL = tuple(state.value for state in JobState if state.value not in UNFINISHED_JOBS)


@dataclass(frozen=True)
class _Due:
    """An answer to be written."""

    job: str
    owner: Caller
    form: str
    output: str


@dataclass(frozen=True)
class Places:
    """Where the answer to a job will lie, or else the reason why there is none: URIs that last."""

    answer: str
    failure: str


class Answers:
    """Writes answers and reads them back for the owners of their jobs."""

    def __init__(self, database: Database, store: BlobStore, jobs: Jobs, files: Files) -> None:
        self._database, self._store, self._jobs, self._files = database, store, jobs, files
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        """Of jobs whose answers are being written."""
        self._reached = ""
        """The job that the leader's last round ended with, "" where it came to the end of them."""

    def places(self, job_id: str) -> Places | None:
        """Where to look for the answer to a job without asking the portal: in the bucket. None where the
        store is a folder of this machine.
        """
        found = Places(*(self._store.location(key(job_id)) for key in (keys.job_answer, keys.job_failure)))
        return found if found.answer.startswith("s3://") else None

    def deliver(self) -> int:
        """Write what is due for jobs that are final. Returns how many answers were written. A round ends with
        a large one, and with one that fails; the next goes on behind it, and all begin anew at the end.
        """
        written, size = 0, 0
        for due in self._due():
            self._reached = due.job
            try:
                size += self._write(due)
            except Exception as error:
                told = error if isinstance(error, AtelierError) else failure(error)
                if told is None:
                    log.exception("the answer to job %s could not be written; it is tried again", due.job)
                else:
                    log.warning("the answer to job %s has to wait: %s", due.job, told.message)
                return written
            written += 1
            if size >= ROUND_BYTES:
                return written
        if written < BATCH:
            self._reached = ""
        return written

    def _due(self) -> list[_Due]:
        """The next answers to write, in the order of their jobs."""
        with self._database.reading() as session:
            query = (
                select(AnswerDue.job_id, Job.owner_id, AnswerDue.form, AnswerDue.output)
                .join(Job, Job.id == AnswerDue.job_id)
                .where(Job.state.in_(_FINAL), AnswerDue.job_id > self._reached)
                .order_by(AnswerDue.job_id)
                .limit(BATCH)
            )
            return [_Due(job, _owner(owner), *how) for job, owner, *how in session.execute(query)]

    def read(self, caller: Caller, job_id: str) -> BinaryIO | JobView:
        """The answer to a job of the caller's as JSON in UTF-8; the job where there is none yet. Raises
        NotFound, and JobFailed where there will be none.
        """
        view = self._jobs.get(caller, job_id)
        self._jobs.request(caller, job_id)  # what others share is looked at elsewhere
        with self._database.reading() as session:
            row = session.get(AnswerDue, job_id)
            due = _Due(job_id, caller, row.form, row.output) if row else None
        if due is not None and not view.state.final:
            return view
        if due is not None:
            self._write(due)
        return self._stored(job_id)

    def _stored(self, job_id: str) -> BinaryIO:
        try:
            return self._store.open(keys.job_answer(job_id))
        except NotFound:
            pass
        try:
            error = json.loads(self._store.get(keys.job_failure(job_id)))["error"]
        except NotFound:
            raise NotFound(
                f"This job was not sent to /inference, so it has no answer here. See /api/v1/jobs/{job_id}."
            ) from None
        raise JobFailed(from_body(error).message, detail={"job": job_id, "error": error})

    def _write(self, due: _Due) -> int:
        """Write an answer unless it was written meanwhile. Its bytes."""
        with self._guard:
            lock = self._locks.setdefault(due.job, threading.Lock())
        with lock:
            with self._database.reading() as session:
                if session.get(AnswerDue, due.job) is None:
                    return 0
            return self._put(due)

    def _put(self, due: _Due) -> int:
        size = 0
        view = self._jobs.get(due.owner, due.job)
        try:
            error = peer_answers.failure(view)
            if error is None:
                size = self._put_answer(view, due)
        except NotFound as gone:
            log.warning("the answer to job %s cannot be put together: %s", due.job, gone.message)
            error = gone
        if error is not None:
            self._put_failure(due.job, error)
        with self._database.session() as session:
            session.execute(delete(AnswerDue).where(AnswerDue.job_id == due.job))
        return size

    def _put_failure(self, job_id: str, error: AtelierError) -> None:
        told = json.dumps({"error": error.body()}).encode()
        self._store.put(keys.job_failure(job_id), told, content_type=JSON)

    def _put_answer(self, view: JobView, due: _Due) -> int:
        """One picture is in memory at a time: an answer may hold a hundred of them. Its bytes."""
        parameters = self._jobs.request(due.owner, view.id)
        sent = due.form == "plain" or due.output == "s3" or parameters.get("send_images") is not False
        pictures = [each for each in view.pictures if each.shown] if sent else []
        with tempfile.TemporaryDirectory(prefix="atelier-answer-") as folder:
            path = Path(folder) / "answer.json"
            with path.open("w", encoding="utf-8") as out:
                if due.output == "s3":
                    _list(out, "s3_loc", (self._location(due.owner, each) for each in pictures))
                else:
                    name = "generated_images" if due.form == "plain" else "images"
                    _list(out, name, (self._encoded(due.owner, each) for each in pictures))
                if due.form == "published":
                    told: dict[str, Any] = {
                        "parameters": parameters,
                        "info": json.dumps(peer_answers.info(view)),
                    }
                    out.write(", " + json.dumps(told)[1:-1])
                out.write("}")
            return self._store.put(keys.job_answer(view.id), path, content_type=JSON).size

    def _encoded(self, owner: Caller, picture: PictureView) -> str:
        _, key = self._files.describe(owner, picture.id)
        return base64.b64encode(self._store.get(key)).decode()

    def _location(self, owner: Caller, picture: PictureView) -> str:
        """In the bucket; for a store that is a folder the picture's path under the studio's own address."""
        location = self._store.location(self._files.describe(owner, picture.id)[1])
        return location if location.startswith("s3://") else picture.url


def _list(out: TextIO, name: str, values: Iterable[str]) -> None:
    """Begin an object with a member that is a list of texts."""
    out.write("{" + json.dumps(name) + ": [")
    for number, value in enumerate(values):
        out.write((", " if number else "") + json.dumps(value))
    out.write("]")


def _owner(user_id: str) -> Caller:
    """Somebody as the owner of their own things, and nothing more."""
    return Caller(user_id, "", (), frozenset())
