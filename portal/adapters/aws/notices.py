"""What SageMaker tells its topics of an asynchronous invocation, as a completion.

    {"invocationStatus": "Completed" | "Failed", "inferenceId": ..., "failureReason": ...,
     "requestParameters": {"endpointName": ...,
                           "inputLocation": "s3://bucket/prefix/jobs/<job>/<part>/<attempt>/invocation.json"}}

It comes as it is (raw delivery) or as `Message` in SNS's envelope. Which attempt it was is read off the
input's key, which the portal chose: nothing that a worker or a caller wrote is believed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from atelier.contract import keys
from atelier.contract.errors import AtelierError, InternalError, WorkerUnavailable, WorkReturned
from portal.services.ports import Completion

_INPUT = re.compile(r"jobs/([^/]+)/([^/]+)/([0-9]{1,9})/[^/]+\Z")
_STATUS = re.compile(r"\berror \(([45][0-9]{2})\)")
"""How SageMaker tells the status of a worker's answer: "Received client error (422) from model"."""
BROKEN_OFF = (408, 499)
"""Statuses by which a worker says that it never had the whole request: no refusal of the work."""
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Notice:
    """A message that was read: a completion, or (`why_not`) what keeps it from being one of ours.
    `malformed`: nobody who speaks to this queue should say such a thing.
    """

    completion: Completion | None = None
    why_not: str = ""
    malformed: bool = False


def read(body: str, store: str) -> Notice:
    """The notice in a message's body. `store` is the location that every input of ours begins with:
    `s3://bucket/prefix/`.
    """
    told = _told(body)
    if told is None:
        return Notice(why_not="it is no notice of SageMaker's", malformed=True)
    place = told["requestParameters"].get("inputLocation")
    status = told["invocationStatus"]
    if not isinstance(place, str) or status not in ("Completed", "Failed"):
        return Notice(why_not="it is no notice of an invocation's end", malformed=True)
    found = _INPUT.match(place.removeprefix(store)) if place.startswith(store) else None
    if found is None:
        return Notice(why_not=f"it is of {place[:300]!r}, which is no part of this studio's work")
    job, part, number = found[1], found[2], int(found[3])
    try:
        ours = place == store + keys.invocation(job, part, number)
    except ValueError:
        ours = False
    if not ours:
        return Notice(why_not=f"it is of {place[:300]!r}, which is no part of this studio's work")
    error = None if status == "Completed" else _failure(told)
    return Notice(Completion(job, part, number, error))


def _told(body: str) -> dict[str, Any] | None:
    """The notice itself, with its envelope taken off; None for anything else."""
    told = _table(body)
    if told is not None and told.get("Type") == "Notification" and isinstance(told.get("Message"), str):
        told = _table(told["Message"])
    if told is None or not isinstance(told.get("requestParameters"), dict) or "invocationStatus" not in told:
        return None
    return told


def _table(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _failure(told: dict[str, Any]) -> dict[str, Any]:
    """The error of a failed invocation. A worker that failed by itself left its reason in the store, which
    counts more; what is said here is of those that could not.
    """
    reason = " ".join(str(told.get("failureReason") or "SageMaker does not say why").split())
    return _of_status(reason[:_LONGEST_REASON]).body()


def _of_status(reason: str) -> AtelierError:
    """The error by the status that the worker answered with. One that starts, drains or is full gives the
    work back (503, 429); what it refuses, it would refuse again.
    """
    found = _STATUS.search(reason)
    status = int(found[1]) if found else 0
    if status in (429, 503):
        return WorkReturned(f"The endpoint gave the work back: {reason}")
    if 400 <= status < 500 and status not in BROKEN_OFF:
        return InternalError(
            f"The worker refused the work, and would again: {reason} An administrator finds the reason in "
            "the endpoint's log (CloudWatch, /aws/sagemaker/Endpoints)."
        )
    return WorkerUnavailable(f"The endpoint did not finish the work: {reason}")
