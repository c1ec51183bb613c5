"""atelier endpoint: where pictures are made."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from portal.cli.commands import OPERATOR, command, group, services
from portal.services.ports import EndpointSpec

if TYPE_CHECKING:
    from portal.cli.commands import Commands


def add_to(commands: Commands) -> None:
    """Declare the commands."""
    endpoints = group(commands, "endpoint", "Create endpoints, list, change and delete them.")
    create = command(endpoints, "create", _create, "Create an endpoint; a running portal starts it.")
    update = command(endpoints, "update", _update, "Change an endpoint; running work is not interrupted.")
    for each in (create, update):
        each.add_argument("name")
        each.add_argument("--type", dest="instance_type", help="kind of its instances: see endpoint types")
        each.add_argument("--min-instances", type=int, help="at least so many (1); 0 lets it sleep")
        each.add_argument("--max-instances", type=int, help="at most so many (1)")
        each.add_argument("--target", type=int, help="parts for each instance before another starts (slots)")
        each.add_argument("--slots", type=int, help="parts one instance works on at once (3)")
        each.add_argument("--idle-seconds", type=float, help="quiet time until an instance goes (600)")
        each.add_argument("--threads", type=int, help="CPU threads of each worker (1)")
        each.add_argument("--price-hour", type=float, help="what an instance costs an hour (0)")
        each.add_argument("--metric", help="what it scales by: demand, backlog or invocations (demand)")
        each.add_argument("--image", help="image of the custom kinds")
        each.add_argument(
            "--schedule", help="hours with other numbers: mon-fri 08:00-18:00 Europe/Berlin 1-4"
        )
    create.add_argument("--kind", help="async, realtime, custom or custom-realtime (async)")
    command(endpoints, "list", _list, "List the endpoints, with their state and its reason.")
    command(endpoints, "types", _types, "List the kinds of instances there are.")
    delete = command(endpoints, "delete", _delete, "Delete an endpoint.")
    delete.add_argument("name")


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    """What was said of the endpoint, by field."""
    names = [name for name in vars(EndpointSpec("")) if name not in ("name", "options")]
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


def _create(arguments: argparse.Namespace) -> int:
    with services() as built:
        given = {"name": arguments.name, **_given(arguments)}
        built.work.endpoints.create(OPERATOR, built.work.endpoints.begun(given))
    print(f"Created {arguments.name}.")
    return 0


def _update(arguments: argparse.Namespace) -> int:
    with services() as built:
        built.work.endpoints.update(OPERATOR, arguments.name, _given(arguments))
    print(f"Changed {arguments.name}.")
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for each in built.work.endpoints.listed():
            numbers = (
                f"{each.status.instances} of {each.spec.min_instances}-{each.spec.max_instances} instances"
            )
            print(
                f"{each.spec.name}\t{each.condition.value}\t{numbers}\t"
                f"{each.in_flight} in flight\t{each.queued} queued\t{each.because}"
            )
    return 0


def _types(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for each in built.work.endpoints.offers():
            print(f"{each.name}\t{each.threads} threads\t{each.device}\t{each.description}")
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    with services() as built:
        built.work.endpoints.delete(OPERATOR, arguments.name)
    print(f"{arguments.name} gets no work any more, and goes once its workers have stopped.")
    return 0
