"""For processes that start no workers: what they write down, the process with the role dispatcher carries
out.
"""

from __future__ import annotations

from collections.abc import Callable

from atelier.contract.errors import WorkerUnavailable
from portal.adapters.local import machine
from portal.adapters.local.custom import NoCustomEndpoints
from portal.adapters.local.fleet import check
from portal.services.ports import (
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    InstanceType,
    Submission,
    TicketState,
)


class DeferredFleet(NoCustomEndpoints):
    """Fleet of a command or of a portal that only answers requests. `offers` and `check` are those of the
    fleet that the dispatcher has, by default one on this machine.
    """

    def __init__(
        self,
        offers: Callable[[], tuple[InstanceType, ...]] = machine.offers,
        check: Callable[[EndpointSpec], None] = check,
    ) -> None:
        self._offers = offers
        self._check = check

    def check(self, spec: EndpointSpec) -> None:
        """See Fleet."""
        self._check(spec)

    def create(self, spec: EndpointSpec) -> None:
        """The row is there already; the dispatcher finds it."""

    def update(self, spec: EndpointSpec) -> None:
        """As with `create`."""

    def delete(self, name: str) -> None:
        """As with `create`."""

    def release(self, name: str) -> None:
        """As with `create`."""

    def describe(self, name: str) -> EndpointStatus:
        """Nothing is known of it here."""
        return EndpointStatus(EndpointState.CREATING)

    def demand(self, name: str, parts: int) -> None:
        """As with `create`."""

    def offers(self) -> tuple[InstanceType, ...]:
        """Those of the dispatcher's fleet."""
        return self._offers()

    def submit(self, submission: Submission) -> str:
        """Raises WorkerUnavailable: only a dispatcher sends."""
        raise WorkerUnavailable("This process sends no work to workers.")

    def poll(self, ticket: str) -> TicketState:
        """Never heard of."""
        return TicketState.UNKNOWN

    def close(self) -> None:
        """There is nothing to let go of."""
