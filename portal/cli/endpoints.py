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
    endpoints = group(commands, "endpoint", "Create endpoints, list and delete them.")
    create = command(endpoints, "create", _create, "Create an endpoint; a running portal starts it.")
    create.add_argument("name")
    create.add_argument("--min-instances", type=int, default=1)
    create.add_argument("--max-instances", type=int, default=1)
    create.add_argument("--slots", type=int, default=8, help="parts one instance works on at once")
    create.add_argument("--idle-seconds", type=float, default=600.0, help="quiet time until it sleeps")
    create.add_argument("--threads", type=int, default=1, help="CPU threads of its worker")
    command(endpoints, "list", _list, "List the endpoints.")
    delete = command(endpoints, "delete", _delete, "Delete an endpoint.")
    delete.add_argument("name")


def _create(arguments: argparse.Namespace) -> int:
    spec = EndpointSpec(
        name=arguments.name,
        min_instances=arguments.min_instances,
        max_instances=arguments.max_instances,
        slots=arguments.slots,
        idle_seconds=arguments.idle_seconds,
        threads=arguments.threads,
    )
    with services() as built:
        built.work.endpoints.create(OPERATOR, spec)
    print(f"Created {spec.name}.")
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    with services() as built:
        for each in built.work.endpoints.listed():
            print(
                f"{each.spec.name}\t{each.status.state.value}\t"
                f"{each.in_flight} in flight\t{each.queued} queued"
            )
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    with services() as built:
        built.work.endpoints.delete(OPERATOR, arguments.name)
    print(f"Deleted {arguments.name}.")
    return 0
