"""What Prometheus reads: counters of this process, and figures of the studio read from the database when
asked for. No label holds the name of a user, a prompt or a path that somebody typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import PartState
from portal.db.audit import AuditHead
from portal.db.base import Database
from portal.db.work import Attempt, Endpoint, Part
from portal.services.demand import demands
from portal.services.measures import Measures

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends, in seconds, of the latencies that are counted apart."""
UNMATCHED = "none"
"""The route of a request that no route answers: paths are made up without end."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Metrics:
    """The figures of one portal process. Every method may be called from several threads."""

    def __init__(
        self,
        database: Database,
        *,
        accepted: Callable[[], int],
        leads: Callable[[], bool],
        swept: Callable[[], int],
        measures: Measures | None = None,
    ) -> None:
        self._measures = measures or Measures()
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "atelier_http_request_seconds",
            "Requests by route, method and status, and the seconds until each answer began.",
            ("route", "method", "status"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_Process(accepted, leads, swept))
        self._registry.register(_Studio(database))

    def answered(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request. `route` is its template, None where no route matched."""
        self._requests.labels(route or UNMATCHED, known_method(method), str(status)).observe(seconds)

    def exposition(self) -> bytes:
        """All figures in Prometheus's text format 0.0.4. Raises what the database raises."""
        return generate_latest(self._registry) + generate_latest(self._measures.registry)


def known_method(method: str) -> str:
    """A method of HTTP by its name; "other" for what somebody made up."""
    return method if method in METHODS else "other"


class _Process(Collector):
    """What this process alone knows."""

    def __init__(
        self, accepted: Callable[[], int], leads: Callable[[], bool], swept: Callable[[], int]
    ) -> None:
        self._accepted = accepted
        self._leads = leads
        self._swept = swept

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        jobs = "Jobs this process has accepted since its start."
        yield CounterMetricFamily("atelier_jobs_accepted", jobs, value=self._accepted())
        swept = "Blobs and files that belonged to nobody, removed by this process since its start."
        yield CounterMetricFamily("atelier_swept_blobs", swept, value=self._swept())
        leads = "1 where this process is the one that dispatches, else 0."
        yield GaugeMetricFamily("atelier_dispatcher_leader", leads, value=int(self._leads()))


class _Studio(Collector):
    """What the database says; every portal process tells the same."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        return []  # else registering would ask a database that may not be there yet

    def collect(self) -> Iterator[Metric]:
        count = func.count()
        open_ones = select(Attempt.endpoint, count).where(Attempt.open).group_by(Attempt.endpoint)
        with self._database.reading() as session:
            parts = _pairs(session, select(Part.state, count).group_by(Part.state))
            attempts = _pairs(session, open_ones)
            instances = _pairs(session, select(Endpoint.name, Endpoint.instances))
            entries = session.scalar(select(AuditHead.count)) or 0
            asked = demands(session)
            oldest = session.scalar(
                select(func.min(Part.created)).where(Part.state == PartState.QUEUED.value)
            )
        queue, ended = (
            {state.value: parts.get(state.value, 0) for state in PartState if state.final is final}
            for final in (False, True)
        )
        of_endpoints = {name: attempts.get(name, 0) for name in (*instances, *attempts)}
        yield _gauge("atelier_queue_parts", "Parts that are not done, by state.", "state", queue)
        yield _gauge("atelier_ended_parts", "Parts that are kept, by outcome.", "outcome", ended)
        yield _gauge("atelier_open_attempts", "Attempts under way.", "endpoint", of_endpoints)
        yield _gauge("atelier_instances", "Instances in service.", "endpoint", instances)
        wanted = {name: asked.get(name, 0) for name in instances}
        yield _gauge("atelier_demand_parts", "Parts an endpoint scales by.", "endpoint", wanted)
        waits = "When the part that has waited longest was accepted, in unix seconds; 0 where none waits."
        yield GaugeMetricFamily("atelier_oldest_queued_timestamp_seconds", waits, value=oldest or 0.0)
        yield CounterMetricFamily("atelier_audit_entries", "Entries of the audit trail.", value=entries)


def _pairs(session: Session, query: Select[str, int]) -> dict[str, int]:
    return {name: value for name, value in session.execute(query)}


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for each, value in sorted(values.items()):
        family.add_metric((each,), value)
    return family
