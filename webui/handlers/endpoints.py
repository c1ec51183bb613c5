"""Where pictures are made: the endpoints the caller may use, and the one they chose, kept with their
settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError
from atelier.ownoptions import AUTOMATIC, ENDPOINT
from webui.portal import Portal, StudioClient

Update = dict[str, Any]
Handler = Callable[[gr.Request, str | None], Awaitable[Update]]

STATES: Mapping[str, str] = {
    "in_service": "ready",
    "asleep": "asleep, wakes with a job",
    "creating": "being made",
    "starting": "starting",
    "failed": "failed",
}
"""What stands behind an endpoint's name, by its state."""


def endpoint_lister(portal: Portal) -> Handler:
    """A handler that fills the list and shows what holds for the caller."""

    async def list_endpoints(request: gr.Request, chosen: str | None) -> Update:
        try:
            async with portal.client(request.cookies) as client:
                return await _listed(client, None)
        except AtelierError:
            # The same failure stands at the list of checkpoints, with its sentence.
            return dict(gr.skip())

    return list_endpoints


def endpoint_keeper(portal: Portal) -> Handler:
    """A handler that keeps the choice with the caller's settings; where it cannot be, it says why and shows
    what holds.
    """

    async def keep_endpoint(request: gr.Request, chosen: str | None) -> Update:
        try:
            async with portal.client(request.cookies) as client:
                try:
                    await client.set_own({ENDPOINT: chosen or AUTOMATIC})
                except AtelierError as error:
                    return await _listed(client, error.message)
                return dict(gr.update(info=None))
        except AtelierError as error:
            return dict(gr.update(info=error.message))

    return keep_endpoint


async def _listed(client: StudioClient, said: str | None) -> Update:
    settings = await client.own_settings()
    held = next((each for each in settings if each["key"] == ENDPOINT), {})
    choices = choices_of(await client.endpoints())
    value = held.get("value", AUTOMATIC)
    there = value in {name for _, name in choices}
    locked = f"Locked by {held['locked_by']}." if held.get("locked_by") else None
    return dict(
        gr.update(
            choices=choices,
            value=value if there else AUTOMATIC,
            interactive=not locked,
            info=said or locked,
        )
    )


def choices_of(endpoints: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(what is shown, name) of each endpoint, the automatic choice first."""
    shown = [
        (f"{each['name']} ({STATES.get(str(each['state']), each['state'])})", str(each["name"]))
        for each in endpoints
    ]
    return [("Automatic", AUTOMATIC), *shown]
