"""What a dispatching process counts as it works: attempts, the worker seconds they took, how long parts
waited, and the rounds of the sweeper. Every method may be called from several threads.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

WAITS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper ends, in seconds, of the waits that are counted apart."""


class Measures:
    """Counters that begin with the process. Labels are endpoints and the few outcomes of attempts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._waits = Histogram(
            "atelier_queue_wait_seconds",
            "Seconds between a part's being ready and its being sent, of each attempt this process sent.",
            buckets=WAITS,
            registry=self.registry,
        )
        self._attempts = Counter(
            "atelier_attempts",
            "Attempts this process saw end, by endpoint and outcome.",
            ("endpoint", "outcome"),
            registry=self.registry,
        )
        self._worked = Counter(
            "atelier_worker_seconds",
            "Seconds that workers had parts whose pictures were kept, by endpoint.",
            ("endpoint",),
            registry=self.registry,
        )
        self._rounds = Counter(
            "atelier_sweeps",
            "Rounds of the sweeper: lost attempts, expired parts, leavers, files that are nobody's.",
            registry=self.registry,
        )
        self._swept = Gauge(
            "atelier_last_sweep_timestamp_seconds",
            "When this process ended its last round of the sweeper; 0 where it made none.",
            registry=self.registry,
        )

    def sent(self, waited: float) -> None:
        """A part was sent that had been ready for so many seconds."""
        self._waits.observe(max(0.0, waited))

    def ended(self, endpoint: str, outcome: str | None, worked: float) -> None:
        """An attempt ended; a worker had it for `worked` seconds."""
        self._attempts.labels(endpoint, outcome or "unknown").inc()
        if worked > 0:
            self._worked.labels(endpoint).inc(worked)

    def swept(self, at: float) -> None:
        """A round of the sweeper ended at `at`, in unix seconds."""
        self._rounds.inc()
        self._swept.set(at)
