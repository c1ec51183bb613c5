"""The Generate button: the form becomes a job of the caller's, and its id goes back to the page's script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.contract.jobs import JobRequest
from webui.handlers.ticket import ticket
from webui.params.form import FORM, payload
from webui.params.table import Value
from webui.params.units import members
from webui.portal import Portal

Handler = Callable[..., Awaitable[str]]


def generator(portal: Portal) -> Handler:
    """A handler that submits the form, with the checkpoint and the endpoint before its values, and behind
    them, if anything, the units that the page's script keeps.
    """

    async def generate(
        request: gr.Request, checkpoint: str | None, endpoint: str | None, *values: Value
    ) -> str:
        try:
            caller = await portal.caller(request.cookies) or {}
            form, beside = values[: len(FORM)], values[len(FORM) :]
            fields = payload(form, caller.get("settings") or {})
            fields |= {name: each for text in beside for name, each in members(text).items()}
            job = job_request(checkpoint, endpoint, fields)
            async with portal.client(request.cookies) as client:
                accepted = await client.submit(job)
        except AtelierError as error:
            return ticket(error=error)
        except (TypeError, ValueError) as error:
            return ticket(error=InvalidRequest(f"The form could not be read ({error}). Reload the page."))
        return ticket(job=accepted.id)

    return generate


def job_request(checkpoint: str | None, endpoint: str | None, fields: dict[str, Any]) -> JobRequest:
    """The request; without an endpoint, while the list is not there yet, that of the caller's settings."""
    named: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    return JobRequest(model=checkpoint or None, txt2img_payload=fields, **named)
