"""The upscale button under a picture: the same picture once more, with the form's hires fix."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError, InvalidRequest
from webui.handlers.generate import Handler, job_request
from webui.handlers.ticket import ticket
from webui.params.form import ALWAYS, FORM
from webui.params.table import Form, Value, fields, filled
from webui.params.txt2img import HIRES_SWITCH, TXT2IMG
from webui.portal import Portal


def upscaler(portal: Portal) -> Handler:
    """A handler that submits the picture of `source` with the hires pass of the form.

    `source` is {"infotext", "model"} of the picture as the page's script knows them. The first pass is drawn
    again from the picture's own parameters, which gives the picture itself.
    """

    async def upscale(request: gr.Request, source: str | None, endpoint: str | None, *values: Value) -> str:
        try:
            picture = json.loads(source or "{}")
            form = filled(FORM, values)
            async with portal.client(request.cookies) as client:
                read = await client.infotext(str(picture["infotext"]))
                job = job_request(picture.get("model"), endpoint, upscaled(read, form))
                accepted = await client.submit(job)
        except AtelierError as error:
            return ticket(error=error)
        except (KeyError, TypeError, ValueError):
            return ticket(
                error=InvalidRequest("The picture's parameters could not be read. Reload the page.")
            )
        return ticket(job=accepted.id)

    return upscale


def upscaled(read: dict[str, Any], form: Form) -> dict[str, Any]:
    """One picture as its parameters say, and the hires pass as the form has it."""
    switch = HIRES_SWITCH.elem_id
    hires = [control for control in TXT2IMG if switch in (control.elem_id, control.within)]
    own = {control.field for control in hires}
    kept = {name: value for name, value in read["fields"].items() if name not in own}
    overrides = {"override_settings": read["overrides"]} if read.get("overrides") else {}
    one = {"n_iter": 1, "batch_size": 1}
    return kept | one | fields(hires, {**form, switch: True}) | overrides | ALWAYS
