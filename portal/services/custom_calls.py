"""Calls of custom endpoints: any image that answers /invocations gets the caller's body, byte for byte.

What is sent to an asynchronous one lies in the store under its caller's id, so nobody else ever finds it. The
sweep removes it after a week (portal.services.orphan_rules).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, JobFailed, NotFound
from atelier.storage.base import BlobStore
from portal.db.base import Database, new_id
from portal.db.work import Endpoint
from portal.services.access import Access
from portal.services.callers import Caller
from portal.services.ports import Clock, EndpointKind, Fleet

_ID = re.compile(r"[0-9a-f]{32}\Z")
TOLD = 2000
"""Bytes of a failure's reason that are passed on."""


class _Call(BaseModel):
    """A call as it is remembered."""

    model_config = ConfigDict(frozen=True)

    endpoint: str
    ticket: str
    accept: str
    created: float


@dataclass(frozen=True)
class Answered:
    """What an endpoint answered; `content_type` as it says or as was asked for."""

    body: bytes
    content_type: str


@dataclass(frozen=True)
class Left:
    """A call that was taken and is not answered yet."""

    id: str


class CustomCalls:
    """Passes bodies on, and finds what became of them."""

    def __init__(self, database: Database, store: BlobStore, fleet: Fleet, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._fleet = fleet
        self._clock = clock

    def send(self, caller: Caller, name: str, body: bytes, content_type: str, accept: str) -> Answered | Left:
        """Let a custom endpoint have a body. Raises NotFound for one that is closed to the caller,
        InvalidRequest for one that is none, the fleet's own errors.
        """
        kind = self._kind(caller, name)
        if not kind.custom:
            raise InvalidRequest(
                f"The endpoint {name!r} runs the studio's own image: send its requests to /inference or "
                "/api/v1/jobs. Untouched bodies are for endpoints of the kind custom.",
                detail={"field": "name"},
            )
        if kind.waits:
            return Answered(*self._fleet.ask(name, body, content_type, accept))
        call = new_id()
        key = keys.custom_body(caller.user_id, call)
        self._store.put(key, body, content_type=content_type)
        ticket = self._fleet.leave(name, key, content_type)
        noted = _Call(endpoint=name, ticket=ticket, accept=accept, created=self._clock.now())
        self._store.put(keys.custom_call(caller.user_id, call), noted.model_dump_json().encode())
        return Left(call)

    def read(self, caller: Caller, name: str, call: str) -> Answered | Left:
        """What became of the caller's own call. Raises NotFound, JobFailed with the endpoint's reason."""
        if not _ID.match(call):
            raise NotFound("There is no such call.")
        noted = _Call.model_validate_json(self._store.get(keys.custom_call(caller.user_id, call)))
        if noted.endpoint != name:
            raise NotFound("There is no such call.")
        outcome = self._fleet.outcome(noted.ticket)
        if outcome is None:
            return Left(call)
        body = self._store.get(outcome.key)
        if outcome.failed:
            told = body[:TOLD].decode(errors="replace")
            raise JobFailed(
                f"The endpoint {name!r} did not answer well: {told}", detail={"call": call, "endpoint": name}
            )
        return Answered(body, noted.accept)

    def _kind(self, caller: Caller, name: str) -> EndpointKind:
        with self._database.reading() as session:
            row = session.get(Endpoint, name)
            if row is None or not Access(session, caller.user_id).endpoint(name):
                raise NotFound(f"There is no endpoint named {name[:80]!r}.")
            return EndpointKind(row.kind)
