"""atelier rehearse, timelines: a day of work against endpoints of AWS, their policies and prices."""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from atelier.contract.errors import InvalidRequest
from atelier.contract.timeline import computing_seconds
from portal import simulated
from portal.cli.commands import command, services
from portal.db.work import Part
from portal.services.ports import EndpointSpec, InstanceType

if TYPE_CHECKING:
    from portal.cli.commands import Commands

NAME = "rehearsed"
_MAKE_RULES = frozenset(
    {"register_scalable_target", "put_scaling_policy", "put_metric_alarm", "put_scheduled_action"}
)


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    rehearse = command(
        commands, "rehearse", _rehearse, "Replay a day against policies, instance types and prices of AWS."
    )
    rehearse.add_argument(
        "--timelines", type=Path, help="a day from `atelier timelines`; else one is made up"
    )
    rehearse.add_argument("--users", type=int, default=10, help="designers of the day that is made up (10)")
    rehearse.add_argument("--seed", type=int, default=0, help="of that day, and of how long AWS takes (0)")
    rehearse.add_argument("--type", action="append", help="kind of instances (ml.g5.xlarge); may be repeated")
    rehearse.add_argument("--min-instances", type=int, action="append", help="at least (0 and 1)")
    rehearse.add_argument("--max-instances", type=int, default=4, help="at most (4)")
    rehearse.add_argument("--idle-seconds", type=float, action="append", help="until one goes (300 and 1800)")
    rehearse.add_argument("--schedule", action="append", help="hours with other numbers, as of endpoints")
    rehearse.add_argument("--target", type=int, help="parts for each instance before another starts (slots)")
    rehearse.add_argument(
        "--speed", action="append", default=[], metavar="TYPE=N", help="times as fast as the day was measured"
    )
    rehearse.add_argument(
        "--together", type=int, default=1, help="parts at once that take no longer than one"
    )
    rehearse.add_argument("--days", type=float, default=22.0, help="such days in a month (22)")
    rehearse.add_argument("--plot", type=Path, help="SVG file for waiting time against monthly cost")
    timelines = command(commands, "timelines", _timelines, "Write what was asked for when, for rehearse.")
    timelines.add_argument(
        "file", type=Path, help="JSON lines: moment and seconds of the engine of each part"
    )


def _timelines(arguments: argparse.Namespace) -> int:
    """Nothing of whose work it was, or what of, is written."""
    query = select(Part.timeline).where(Part.timeline.is_not(None)).order_by(Part.created)
    count = 0
    with services() as built, built.database.reading() as session, arguments.file.open("w") as out:
        for timeline in session.scalars(query):
            seconds = computing_seconds(timeline or {})
            if seconds is not None and timeline and "accepted" in timeline:
                out.write(json.dumps({"at": timeline["accepted"], "seconds": round(seconds, 3)}) + "\n")
                count += 1
    print(f"{count} parts written to {arguments.file}.")
    return 0


def _rehearse(arguments: argparse.Namespace) -> int:
    simulated.check()
    argv = [sys.executable, "-m", "rehearsal.replay", "--seed", str(arguments.seed)]
    argv += ["--users", str(arguments.users)]
    argv += ["--timelines", str(arguments.timelines)] if arguments.timelines else []
    argv += ["--plot", str(arguments.plot)] if arguments.plot else []
    plans = json.dumps(list(_plans(arguments)))
    return subprocess.run(argv, input=plans, text=True, check=False).returncode


def _plans(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every combination of what was asked for."""
    from portal.adapters.aws.instances import offered

    speeds = _speeds(arguments.speed)
    for kind, least, idle, hours in itertools.product(
        arguments.type or ["ml.g5.xlarge"],
        arguments.min_instances or [0, 1],
        arguments.idle_seconds or [300.0, 1800.0],
        arguments.schedule or [""],
    ):
        offer = offered(kind)
        if offer is None:
            raise InvalidRequest(f"{kind!r} is no kind of instances that AWS endpoints are offered with.")
        spec = EndpointSpec(
            NAME,
            min_instances=least,
            max_instances=max(arguments.max_instances, least, 1),
            slots=offer.slots,
            target=arguments.target,
            idle_seconds=idle,
            instance_type=kind,
            schedule=hours,
        )
        plan = _plan(spec, offer)
        yield plan | {
            "speed": speeds.get(kind, 1.0),
            "together": arguments.together,
            "days": arguments.days,
        }


def _plan(spec: EndpointSpec, offer: InstanceType) -> dict[str, Any]:
    """An endpoint with the requests by which it really would be made to scale."""
    from portal.adapters.aws.names import Names
    from portal.adapters.aws.scaler import Scaler

    names, noted = Names("atelier"), _Noted(list[tuple[str, dict[str, Any]]]())
    Scaler(noted, noted, names, {}).apply(replace(spec, price_hour=offer.price_hour), 0.0)
    hours = f", {spec.schedule}" if spec.schedule else ""
    return {
        "name": f"{spec.instance_type} from {spec.min_instances}, idle {spec.idle_seconds:g} s{hours}",
        "endpoint": names.endpoint(spec.name),
        "resource": names.resource(spec.name),
        "metric": names.endpoint(spec.name),
        "instance_type": spec.instance_type,
        "price_hour": offer.price_hour,
        "slots": spec.slots,
        "first": max(1, spec.min_instances),
        "requests": noted.requests,
    }


class _Noted:
    """Stands in for boto3's clients of Application Auto Scaling and CloudWatch: it notes what makes a rule,
    and there is nothing yet.
    """

    def __init__(self, requests: list[tuple[str, dict[str, Any]]]) -> None:
        self.requests = requests

    def __getattr__(self, operation: str) -> Any:
        def ask(**request: Any) -> Mapping[str, Any]:
            if operation in _MAKE_RULES:
                self.requests.append((operation, request))
            name = f"resource/sagemaker/{request.get('ResourceId')}:policyName/{request.get('PolicyName')}"
            return {"PolicyARN": name, "MetricAlarms": [], "ScheduledActions": []}

        return ask


def _speeds(given: list[str]) -> dict[str, float]:
    found = {}
    for each in given:
        kind, _, speed = each.partition("=")
        try:
            found[kind] = float(speed)
        except ValueError as error:
            raise InvalidRequest(f"--speed {each!r}: write it as ml.g5.xlarge=1.7.") from error
    return found
