"""What the bodies of /invocations mean: signed jobs of the portal, and direct calls resolved here."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from atelier.contract import CONTRACT_VERSION, plain, signing, understands
from atelier.contract.errors import InvalidRequest, NotPermitted, UnsupportedContract
from atelier.contract.parts import JobStamp, ResolvedPart
from atelier.wire import task_of
from workers.inference.direct import DirectCalls
from workers.inference.executor import Executor
from workers.runtime.server import Answer, Invocation

Value = TypeVar("Value", bound=BaseModel)


class Tasks:
    """Takes bodies apart and passes them on. `key` signs jobs; an empty key refuses all of them."""

    def __init__(self, executor: Executor, direct: DirectCalls, endpoint: str, key: bytes) -> None:
        self._executor, self._direct, self._endpoint, self._key = executor, direct, endpoint, key

    async def __call__(self, invocation: Invocation) -> dict[str, Any] | Answer:
        """The answer to one body. Raises AtelierError."""
        body = invocation.body
        if "job" in body:
            part, stamp = self._signed(body)
            return await self._executor.run_job(part, stamp)
        if "task" in body:
            task_of(body)
            return await self._direct.txt2img(invocation)
        if plain.is_plain(body):
            return await self._direct.plain(invocation)
        raise InvalidRequest(
            "This body is of no kind that is served: a plain request has a `prompt` (or `inputs`), "
            'a task of the published wire is {"task": "text-to-image", "txt2img_payload": {...}}.'
        )

    def _signed(self, body: dict[str, Any]) -> tuple[ResolvedPart, JobStamp]:
        """The part and stamp of a job's body. The signature comes first: nothing else of an unsigned body is
        looked at.
        """
        if not signing.verify(body, self._key):
            raise NotPermitted("The `job` of this body has no valid signature of this deployment.")
        stamp = _typed(JobStamp, body["job"], "job")
        if stamp.endpoint != self._endpoint:
            raise NotPermitted(f"This job is for the endpoint {stamp.endpoint!r}, not {self._endpoint!r}.")
        resolved = body.get("resolved")
        version = str(resolved.get("contract", "")) if isinstance(resolved, dict) else ""
        if not understands(version):
            raise UnsupportedContract(
                f"This worker speaks contract {CONTRACT_VERSION}, and the part {version[:20] or 'none'}.",
                detail={"spoken": CONTRACT_VERSION, "asked": version[:20]},
            )
        task_of(body)
        return _typed(ResolvedPart, resolved, "resolved"), stamp


def _typed(kind: type[Value], value: Any, name: str) -> Value:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in (name, *first["loc"]))
        raise InvalidRequest(f"{place} cannot be used: {first['msg']}.") from error
