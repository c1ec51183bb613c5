"""What fleets without AWS say to calls of custom endpoints."""

from __future__ import annotations

from atelier.contract.errors import NotFound, WorkerUnavailable
from portal.services.ports import Outcome

NO_CUSTOM = "Only a process that runs endpoints on AWS can call a custom one."


class NoCustomEndpoints:
    """The part of Fleet that is about custom endpoints, where there are none."""

    def ask(self, name: str, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """See Fleet. There are no custom endpoints on one machine."""
        raise WorkerUnavailable(NO_CUSTOM)

    def leave(self, name: str, key: str, content_type: str) -> str:
        """See Fleet. There are no custom endpoints on one machine."""
        raise WorkerUnavailable(NO_CUSTOM)

    def outcome(self, ticket: str) -> Outcome | None:
        """See Fleet. There are no custom endpoints on one machine."""
        raise NotFound("There is no such call.")
