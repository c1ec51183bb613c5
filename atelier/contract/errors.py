"""Every failure a user, a program or another process can see, as one tree.

AtelierError                      code              status retryable
|- InvalidRequest                 invalid_request      422  no   the request cannot be understood or done
|  |- UnknownName                 unknown_name         422  no   no sampler, ... of that name; the nearest
|  |- LimitExceeded               limit_exceeded       422  no   a number beyond what may be asked for
|  |- UnsupportedContract         unsupported_contract 422  no   the other side speaks a newer contract
|  |- MalformedBody               malformed_body       400  no   the body is no JSON
|  |- UnsupportedMedia            unsupported_media    415  no   the body is of another media type
|  `- NotAcceptable               not_acceptable       406  no   no answer of that media type is made
|- PayloadTooLarge                payload_too_large    413  no
|- NotAuthenticated               not_authenticated    401  no
|- NotPermitted                   not_permitted        403  no
|- NotFound                       not_found            404  no   also what belongs to somebody else
|- Conflict                       conflict             409  no
|- TooManyRequests                too_many_requests    429  yes  back-pressure, throttled login
|- QuotaExceeded                  quota_exceeded       429  no   more than somebody may use; says of what
|- ModelUnusable                  model_unusable       422  no   a model file is damaged or of an unknown kind
|- OutOfMemory                    out_of_memory        507  no   the picture does not fit; says what does
|- StorageFailed                  storage_failed       503  yes  the blob store did not answer
|  `- StorageFull                 storage_full         507  yes  no room on the disk; nothing was lost
|- NotReady                       not_ready            503  yes  a part of the studio fails; says which
|- WorkerUnavailable              worker_unavailable   503  yes  lost, or not there
|  `- WorkReturned                work_returned        503  yes  given back: not the work's fault
|- Expired                        expired              410  no   waited longer than the job may wait
|- JobFailed                      job_failed           424  no   a job that ended without an answer; says why
|- StillRunning                   still_running        504  no   not done within a call; the job goes on
`- InternalError                  internal_error       500  no   a defect of ours; the log has the request id
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class AtelierError(Exception):
    """The root: `message` is a sentence for the user that says what happened, why and what to do."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or {}

    def body(self) -> dict[str, Any]:
        """The JSON of this error as it stands under `error` in every answer of ours."""
        return {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "detail": self.detail,
        }


class InvalidRequest(AtelierError):
    """The request cannot be understood or carried out as it stands."""

    code, http_status = "invalid_request", 422


class UnknownName(InvalidRequest):
    """No sampler, scheduler, checkpoint, VAE, ... of that name."""

    code = "unknown_name"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """The error for an unknown `name` of a `kind`, with the nearest known name in its sentence."""
        names = list(known)
        folded = {each.lower(): each for each in names}
        nearest = [
            folded[each] for each in difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.3)
        ]
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        known_text = ", ".join(repr(each) for each in names[:12]) or "none"
        return cls(
            f"There is no {kind} named {name[:200]!r}.{hint} Known: {known_text}.",
            detail={"kind": kind, "name": name[:200], "nearest": nearest[0] if nearest else None},
        )


class LimitExceeded(InvalidRequest):
    """A number beyond what may be asked for; the sentence names the limit."""

    code = "limit_exceeded"


class UnsupportedContract(InvalidRequest):
    """The other side speaks a contract version this one does not."""

    code = "unsupported_contract"


class MalformedBody(InvalidRequest):
    """The body is no JSON."""

    code, http_status = "malformed_body", 400


class UnsupportedMedia(InvalidRequest):
    """The body says that it is of a media type that is not read here."""

    code, http_status = "unsupported_media", 415


class NotAcceptable(InvalidRequest):
    """The caller accepts no media type that the answer could have."""

    code, http_status = "not_acceptable", 406


class PayloadTooLarge(AtelierError):
    """The body is larger than the limit named in the sentence."""

    code, http_status = "payload_too_large", 413


class NotAuthenticated(AtelierError):
    """Nobody is logged in, or the token is no longer honoured."""

    code, http_status = "not_authenticated", 401


class NotPermitted(AtelierError):
    """Logged in, but without the permission the route declares."""

    code, http_status = "not_permitted", 403


class NotFound(AtelierError):
    """No such object, or one that belongs to somebody else (existence is not told)."""

    code, http_status = "not_found", 404


class Conflict(AtelierError):
    """The object's state, or an idempotency key used with another body, forbids it."""

    code, http_status = "conflict", 409


class TooManyRequests(AtelierError):
    """Back-pressure or a throttled login; `detail.retry_after` says the seconds to wait."""

    code, http_status, retryable = "too_many_requests", 429, True


class QuotaExceeded(AtelierError):
    """More than somebody may use: `detail` names the quota, its limit and what is used, and says in
    `retry_after` after how many seconds there is more, where that is known.
    """

    code, http_status = "quota_exceeded", 429


class ModelUnusable(AtelierError):
    """A model file is damaged, of an unknown family, or not what it was registered as."""

    code, http_status = "model_unusable", 422


class OutOfMemory(AtelierError):
    """The picture does not fit the worker's memory; the sentence names the largest size that does."""

    code, http_status = "out_of_memory", 507


class StorageFailed(AtelierError):
    """The blob store did not answer or refused."""

    code, http_status, retryable = "storage_failed", 503, True


class StorageFull(StorageFailed):
    """There is no room on the disk. Work that met this did nothing wrong: it is sent again until there is
    room, and the attempt does not count against it.
    """

    code, http_status = "storage_full", 507


class NotReady(AtelierError):
    """A part of the studio does not work; `detail.checks` says of each what is wrong."""

    code, http_status, retryable = "not_ready", 503, True


class WorkerUnavailable(AtelierError):
    """The worker is not there, or was lost while it had the work."""

    code, http_status, retryable = "worker_unavailable", 503, True


class WorkReturned(WorkerUnavailable):
    """A worker that starts, drains or cannot be reached gave the work back: the work did nothing wrong, and
    the attempt does not count against it.
    """

    code = "work_returned"


class Expired(AtelierError):
    """The job waited longer than it may."""

    code, http_status = "expired", 410


class JobFailed(AtelierError):
    """A job ended without the answer that is asked for: `detail` has the `job` and the `error` that ended
    it. Asking again changes nothing.
    """

    code, http_status = "job_failed", 424


class StillRunning(AtelierError):
    """A call waited for a job as long as it may. The job goes on: `detail` has its `job` and `status_url`."""

    code, http_status = "still_running", 504


class InternalError(AtelierError):
    """A defect of ours. The log has the request id."""


def _leaves(root: type[AtelierError]) -> dict[str, type[AtelierError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


ERRORS: dict[str, type[AtelierError]] = _leaves(AtelierError) | {"internal_error": InternalError}
"""Error classes by code: what the other side of a wire turns a body back into."""


def from_body(body: dict[str, Any]) -> AtelierError:
    """The error whose `body()` came over a wire; an unknown code becomes InternalError."""
    known = ERRORS.get(str(body.get("code")), InternalError)
    detail = body.get("detail")
    return known(
        str(body.get("message") or "No reason was given."), detail=detail if isinstance(detail, dict) else {}
    )
