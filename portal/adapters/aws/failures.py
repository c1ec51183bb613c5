"""What AWS says when it refuses, as errors of ours, in words."""

from __future__ import annotations

import json
import re

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from atelier.contract.errors import (
    AtelierError,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    NotPermitted,
    WorkerUnavailable,
    WorkReturned,
    from_body,
)

BUSY = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "InternalFailure",
        "InternalDependencyException",
        "ModelNotReadyException",
        "ConcurrentUpdateException",
    }
)
"""Codes after which the same call may go well a little later."""
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
"""Codes of credentials that have run out: the process's role gives new ones."""
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_MISSING = re.compile(r"could not find|does not exist|not found|no scalable target|no scaling policy", re.I)
_TURN = re.compile(r"in-progress|in progress|cannot update|while.*(creating|updating)", re.I)


def code_of(error: ClientError) -> str:
    """AWS's code of the failure."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    """HTTP's status of the answer; 0 where none is known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def said(error: ClientError | BotoCoreError) -> str:
    """AWS's own sentence, one line of it."""
    if isinstance(error, ClientError):
        told = str(error.response.get("Error", {}).get("Message", "")) or code_of(error)
    else:
        told = str(error)
    return " ".join(told.split())[:500].rstrip(".")


def missing(error: ClientError) -> bool:
    """Whether what was asked for is not there."""
    code = code_of(error)
    return code in ("ObjectNotFoundException", "ResourceNotFound") or (
        code in ("ValidationException", "ValidationError") and bool(_MISSING.search(said(error)))
    )


def taken(error: ClientError) -> bool:
    """Whether something of that name is there already."""
    return "already exist" in said(error).lower()


def busy(error: ClientError) -> bool:
    """Whether the endpoint is being created or changed, so that this has to have its turn later."""
    return code_of(error) in ("ValidationException", "ResourceInUse") and bool(_TURN.search(said(error)))


def translated(error: ClientError | BotoCoreError, doing: str) -> AtelierError:
    """The failure as an error of ours. `doing` is what was being done: "creating the endpoint x"."""
    told = said(error)
    if isinstance(error, NoCredentialsError):
        return NotPermitted(
            f"AWS could not be asked while {doing}: there are no credentials. Give the process a role."
        )
    if isinstance(error, BotoCoreError):
        return WorkReturned(f"AWS could not be reached while {doing}: {told}. It is tried again.")
    code = code_of(error)
    if code in EXPIRED:
        return WorkReturned(f"The portal's credentials ran out while {doing}: {told}. It is tried again.")
    if code in BUSY or _status(error) == 429:
        return WorkReturned(f"AWS asks for patience while {doing}: {told}. It is tried again.")
    if _status(error) >= 500:
        # A balancer in front of the service answers without a body: the code is only the status then.
        return WorkReturned(f"AWS failed while {doing} ({code}): {told}. It is tried again.")
    if code in _DENIED:
        return NotPermitted(
            f"The portal's role does not allow {doing}: {told}. Add the permission (docs/aws-endpoints.md)."
        )
    if code == "ResourceLimitExceeded":
        return LimitExceeded(quota(told))
    if code in ("ValidationException", "ValidationError"):
        return InvalidRequest(f"AWS refuses {doing}: {told}.")
    return InternalError(f"AWS failed while {doing} ({code}): {told}.")


def of_worker(error: ClientError | BotoCoreError) -> AtelierError | None:
    """The worker's own error, where the call reached a worker and it answered with one; None elsewhere."""
    if not isinstance(error, ClientError) or code_of(error) != "ModelError":
        return None
    status = int(error.response.get("OriginalStatusCode", 500))
    try:
        body = json.loads(error.response.get("OriginalMessage", ""))["error"]
        if isinstance(body, dict):
            return from_body(body)
    except (ValueError, KeyError, TypeError):
        pass
    told = f"The worker answered {status}: {said(error)}."
    return WorkReturned(told) if status in (429, 503) else WorkerUnavailable(told)


def quota(told: str) -> str:
    """What to do where the account may not have so many instances."""
    return (
        f"The account's quota does not allow it: {told}. New accounts have 0 of most GPU instances. "
        "Ask for more in Service Quotas (atelier doctor names the quota), or choose another instance_type."
    )


def capacity(told: str, kind: str) -> str:
    """What to do where AWS itself has no instances left."""
    return (
        f"AWS has no {kind} free in this region now: {told}. It is tried again by itself; "
        "another instance_type may be had at once."
    )


def lacks_capacity(reason: str) -> bool:
    """Whether a FailureReason says that AWS has no such instances now."""
    folded = reason.lower().replace(" ", "")
    return "insufficientinstancecapacity" in folded or "insufficientcapacity" in folded


def explained(reason: str, kind: str, name: str) -> str:
    """A FailureReason in words: what happened, why, what to do. `name` is the endpoint's on AWS."""
    told = " ".join(reason.split())[:500].rstrip(".")
    if not told:
        return "AWS does not say why."
    if lacks_capacity(told):
        return capacity(told, kind)
    if "ResourceLimitExceeded" in told or "service limit" in told or "service quota" in told.lower():
        return quota(told)
    log = f"Its log: CloudWatch, /aws/sagemaker/Endpoints/{name}."
    if "ping" in told.lower() or "health check" in told.lower():
        return f"The worker did not answer /ping in time, so it does not serve: {told}. {log}"
    if "image" in told.lower() and ("pull" in told.lower() or "ecr" in told.lower()):
        remedy = "Push it, and let the endpoints' role read its repository."
        return f"The image could not be fetched: {told}. {remedy}"
    return f"AWS says: {told}. {log}"
