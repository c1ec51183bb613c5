"""A day of work against endpoints, policies and prices: `python -m rehearsal.replay`, with the plans as JSON
on standard input, prints how long people wait for what money, and draws it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal.clock import SimulatedClock
from rehearsal.days import DAY, HOUR, Arrival, read, synthetic
from rehearsal.endpoint import Endpoint
from rehearsal.faults import Chance
from rehearsal.metrics import Metrics, key
from rehearsal.plot import Point, drawn
from rehearsal.rules import KeptRules
from rehearsal.scaling import Scaler
from rehearsal.variant import Answer, Durations, Invocation, Variant, Worker
from rehearsal.workers import ScriptedWorker

TICK, MINUTE = 10.0, 60.0
MIDNIGHT = 1_799_971_200.0
"""Where the simulated day begins: a Friday, 00:00 UTC."""


@dataclass(frozen=True)
class Plan:
    """An endpoint and its price. `requests` are (boto3 method, request) that make its scaling, in order;
    `days` how many such days a month has. A part that has `together` - 1 others beside it on its instance
    takes no longer for that; an instance is `speed` times as fast as what the day's seconds were measured on.
    """

    name: str
    endpoint: str
    resource: str
    metric: str
    instance_type: str
    price_hour: float
    slots: int
    first: int
    requests: tuple[tuple[str, Mapping[str, Any]], ...]
    speed: float = 1.0
    together: int = 1
    days: float = 22.0


@dataclass
class Outcome:
    """What a plan came to: waiting in seconds (from asking to the answer, without the engine's own time) of
    every part, and the seconds that machines ran.
    """

    plan: Plan
    waits: list[float] = field(default_factory=list)
    machine_seconds: float = 0.0
    most: int = 0
    lost: int = 0

    @property
    def monthly(self) -> float:
        """What a month costs, in the plan's currency."""
        return self.machine_seconds / HOUR * self.plan.price_hour * self.plan.days

    def waited(self, share: float) -> float:
        """The wait that a share of all parts does not exceed; 0 where there were none."""
        ranked = sorted(self.waits)
        return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)] if ranked else 0.0


class _Day:
    """One plan's day: its endpoint, and the portal's part in it, which is to publish the demand."""

    def __init__(self, plan: Plan, arrivals: Sequence[Arrival], seed: int) -> None:
        self.outcome = Outcome(plan)
        self.clock = SimulatedClock(MIDNIGHT)
        self._plan = plan
        self._arrivals = {str(number): each for number, each in enumerate(arrivals)}
        self._metrics = Metrics()
        variant = Variant("main", plan.instance_type, plan.first, concurrency=plan.slots, output="")
        self._endpoint = Endpoint(plan.endpoint, variant, self, self.clock, Chance(seed), Durations())
        rules = KeptRules()
        for operation, request in plan.requests:
            rules.put(operation, request)
        self._scaler = Scaler(rules, self._metrics, lambda _: self._endpoint)

    def run(self) -> Outcome:
        """Through the day, and on until the last part is done."""
        self._endpoint.create()
        self.clock.every(TICK, self._tick)
        for name, each in self._arrivals.items():
            self.clock.after(each.at, lambda name=name: self._ask(name))  # type: ignore[misc]
        self.clock.advance(DAY)
        for _ in range(24):
            if len(self.outcome.waits) + self.outcome.lost == len(self._arrivals):
                break
            self.clock.advance(HOUR)
        return self.outcome

    # --- Surroundings of the endpoint

    def open_worker(self, endpoint: str, instance: str, variant: Variant) -> Worker:
        """See Surroundings."""
        return ScriptedWorker(_Computing(self._arrivals, self._plan), self.clock, 25.0)

    def quota_left(self) -> int | None:
        """See Surroundings."""
        return None

    def read(self, uri: str) -> bytes:
        """See Surroundings."""
        return uri.encode()

    def finished(self, endpoint: Endpoint, invocation: Invocation, answer: Answer, reason: str) -> None:
        """See Surroundings. What was given back by a worker that went is sent again, as the portal does."""
        if reason:
            self.clock.after(1.0, lambda: self._ask(invocation.id))
            return
        arrival = self._arrivals[invocation.id]
        took = self.clock.now() - MIDNIGHT - arrival.at
        self.outcome.waits.append(max(0.0, took - arrival.seconds / self._plan.speed))

    def _ask(self, name: str) -> None:
        self._endpoint.accept(Invocation(id=name, received=self.clock.now(), input=name))

    def _tick(self) -> None:
        now, endpoint, plan = self.clock.now(), self._endpoint, self._plan
        demand = len(endpoint.waiting) + endpoint.busy
        where = {"Endpoint": plan.metric}
        self._metrics.put(key("Atelier", "Demand", where), float(demand), now)
        self._metrics.put(key("Atelier", "Capacity", where), float(endpoint.wanted), now)
        self._scaler.tick(now)
        self._backlog(now, demand)
        if now <= MIDNIGHT + DAY:
            self.outcome.machine_seconds += TICK * endpoint.running
        self.outcome.most = max(self.outcome.most, endpoint.running)

    def _backlog(self, now: float, demand: int) -> None:
        """SageMaker's own numbers, once a minute."""
        if now % MINUTE >= 1.0:
            return
        where, serving = {"EndpointName": self._endpoint.name}, self._endpoint.serving
        self._metrics.put(key("AWS/SageMaker", "ApproximateBacklogSize", where), float(demand), now)
        waits = float(demand > 0 and serving == 0)
        self._metrics.put(key("AWS/SageMaker", "HasBacklogWithoutCapacity", where), waits, now)
        if serving:
            each = key("AWS/SageMaker", "ApproximateBacklogSizePerInstance", where)
            self._metrics.put(each, demand / serving, now)


class _Computing:
    """A script that takes the engine's time, longer where parts share an instance."""

    def __init__(self, arrivals: Mapping[str, Arrival], plan: Plan) -> None:
        self._arrivals = arrivals
        self._plan = plan
        self._running = 0

    def begin(self, body: bytes) -> float:
        """See Script."""
        self._running += 1
        alone = self._arrivals[body.decode()].seconds / self._plan.speed
        return alone * max(1.0, self._running / self._plan.together)

    def end(self, body: bytes) -> Answer:
        """See Script."""
        self._running -= 1
        return Answer(200, b"")

    def give_up(self, body: bytes) -> Answer:
        """See Script."""
        self._running -= 1
        return Answer(503, b"")


def replayed(plan: Plan, arrivals: Sequence[Arrival], seed: int = 0) -> Outcome:
    """What `plan` makes of the day."""
    return _Day(plan, arrivals, seed).run()


def report(outcomes: Sequence[Outcome]) -> str:
    """A table, the cheapest first."""
    head = f"{'plan':40} {'a month':>10} {'waits p50':>10} {'p95':>8} {'most':>5}"
    lines = (
        f"{each.plan.name:40} {each.monthly:10.2f} {each.waited(0.5):9.1f}s {each.waited(0.95):7.1f}s"
        f" {each.most:5d}"
        for each in sorted(outcomes, key=lambda it: it.monthly)
    )
    return "\n".join([head, *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the plans on standard input. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.replay", description=__doc__)
    parser.add_argument("--timelines", type=Path, help="a day exported from a studio; else one is made up")
    parser.add_argument("--users", type=int, default=10, help="of the day that is made up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="where to draw waiting time against cost, an SVG file")
    given = parser.parse_args(arguments)
    try:
        arrivals = read(given.timelines) if given.timelines else synthetic(given.users, given.seed)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"The day cannot be read: {error}\n")
        return 1
    outcomes = [replayed(_plan(each), arrivals, given.seed) for each in json.load(sys.stdin)]
    sys.stdout.write(f"{len(arrivals)} parts in a day\n{report(outcomes)}\n")
    if given.plot:
        points = [
            Point(each.plan.name, each.monthly, each.waited(0.5), each.waited(0.95)) for each in outcomes
        ]
        given.plot.write_text(drawn(points, f"{len(arrivals)} parts a day"), encoding="utf-8")
        sys.stdout.write(f"Drawn: {given.plot}\n")
    return 0


def _plan(said: Mapping[str, Any]) -> Plan:
    requests = tuple((operation, request) for operation, request in said["requests"])
    return Plan(**{**said, "requests": requests})


if __name__ == "__main__":
    sys.exit(main())
