"""The paste button: generation parameters become the form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError, InvalidRequest, UnknownName
from atelier.vocabulary import find_sampler, find_scheduler
from webui.handlers.scripts import axis_updates, choices_of
from webui.handlers.ticket import ticket
from webui.params.form import FORM
from webui.params.overrides import chips_of
from webui.params.scripts import (
    CSV_MODE,
    IN_XYZ,
    NO_SCRIPT,
    OFFERED,
    SCRIPT,
    TITLES,
    XYZ_TITLE,
    axis_controls,
)
from webui.params.table import Check, Choice, Choices, Control, Number, Slider
from webui.params.txt2img import (
    CLIP_SKIP,
    EXTRA,
    HIRES_SWITCH,
    OPTION_OF,
    OVERRIDES,
    QUICK,
    REFINER_SWITCH,
    TXT2IMG,
)
from webui.portal import Portal, StudioClient

Update = dict[str, Any]
Read = Mapping[str, Any]
"""The portal's answer: infotext, parameters, fields, overrides, ignored."""

PASTED = (*(control.elem_id for control in FORM), *(f"{IN_XYZ}_fill_{letter}" for letter in "xyz"))
"""Element ids of what pasting may change."""

RECENT = 20
"""How many of the caller's jobs are looked through for their last picture."""

NOTHING_FOUND = "No generation parameters stand in the prompt, so nothing was changed."
NO_PICTURE = "You have no picture yet whose parameters could be read. Paste some into the prompt first."


def paster(portal: Portal) -> Callable[[gr.Request, str | None], Awaitable[tuple[Any, ...]]]:
    """A handler that reads the prompt, or the caller's own last picture where it is empty, into the form:
    the ticket, then an update for each component of PASTED.
    """

    async def paste(request: gr.Request, prompt: str | None) -> tuple[Any, ...]:
        try:
            async with portal.client(request.cookies) as client:
                text = prompt if prompt and prompt.strip() else await last(client)
                read = await client.infotext(text)
                if not set(read["fields"]) - {"prompt", "negative_prompt"}:
                    return ticket(notes=(NOTHING_FOUND,)), *(gr.skip() for _ in PASTED)
                updates, notes = form_updates(read)
                updates |= await xyz_updates(client, read)
        except AtelierError as error:
            return ticket(error=error), *(gr.skip() for _ in PASTED)
        return ticket(notes=tuple(notes)), *(updates.get(each, gr.skip()) for each in PASTED)

    return paste


async def last(client: StudioClient) -> str:
    """The infotext of the caller's newest picture. Raises InvalidRequest where there is none."""
    for job in await client.jobs(limit=RECENT):
        if job.pictures:
            return job.pictures[0].infotext
    raise InvalidRequest(NO_PICTURE)


def form_updates(read: Read) -> tuple[dict[str, Update], list[str]]:
    """(element id -> update, what could not be taken over). Switches follow what the parameters speak of;
    other controls they do not name stay as they are.
    """
    fields, overrides = dict(read["fields"]), dict(read["overrides"])
    if "tiling" in overrides:
        fields["tiling"] = overrides.pop("tiling")
    updates: dict[str, Update] = {}
    notes = [_said(each) for each in read["ignored"]]
    for control in TXT2IMG:
        if control.field in fields and fields[control.field] is not None:
            value, note = fitting(control, fields[control.field])
            notes += [note] if note else []
            updates[control.elem_id] = gr.update(value=value) if value is not None else gr.skip()
        elif isinstance(control, Check) and control.field:
            updates[control.elem_id] = gr.update(value=False)
    varied = bool(fields.get("subseed_strength")) or int(fields.get("seed_resize_from_w") or 0) > 0
    updates[EXTRA] = gr.update(value=varied)
    updates[HIRES_SWITCH.elem_id] = gr.update(value=bool(fields.get("enable_hr")))
    updates[REFINER_SWITCH.elem_id] = gr.update(value=bool(fields.get("refiner_checkpoint")))
    for control in QUICK:
        # A text without them means the usual ones: Clip skip 1, and the VAE that was chosen.
        value = overrides.pop(OPTION_OF[control.elem_id], None)
        if value is not None or control is CLIP_SKIP:
            updates[control.elem_id] = gr.update(value=control.default if value is None else value)
    chips = chips_of(overrides)
    updates[OVERRIDES.elem_id] = gr.update(choices=chips, value=chips, visible=True if chips else "hidden")
    script = read["parameters"].get("Script")
    updates[SCRIPT.elem_id] = gr.update(value=script if script in TITLES else NO_SCRIPT)
    return updates, notes


async def xyz_updates(client: StudioClient, read: Read) -> dict[str, Update]:
    """The axes of a plot's own parameters, nothing for other pictures."""
    parameters = read["parameters"]
    if parameters.get("Script") != XYZ_TITLE:
        return {}
    found: dict[str, Update] = {CSV_MODE: gr.update(value=False)}
    for letter in "xyz":
        axis = str(parameters.get(f"{letter.upper()} Type", "Nothing"))
        if axis not in OFFERED:
            continue
        typed = str(parameters.get(f"{letter.upper()} Values", ""))
        updates = axis_updates(axis, typed, [], False, await choices_of(client, axis))
        ids = [*(control.elem_id for control in axis_controls(letter)), f"{IN_XYZ}_fill_{letter}"]
        found |= dict(zip(ids, updates, strict=True))
    return found


def fitting(control: Control, value: Any) -> tuple[Any, str]:
    """(the value as the control can hold it, None where it cannot; a note where that differs)."""
    try:
        match control:
            case Slider(minimum=low, maximum=high, label=label):
                number = float(value)
                held = min(max(number, low), high)
                told = held != number and number >= 0  # -1 means none, as does the least
                note = f"{label}: {number:g} is out of range, {held:g} was taken." if told else ""
                return (int(held) if float(control.step).is_integer() else held), note
            case Number():
                return int(value), ""
            case Check():
                return str(value).lower() == "true", ""
            case Choices():
                return list(value), ""
            case Choice(callers=False, choices=choices, label=label):
                name = _canonical(control.field, str(value), choices)
                return (
                    (name, "") if name in choices else (None, f"{label}: {value!s:.80} is not offered here.")
                )
    except (TypeError, ValueError):
        return None, f"{control.label}: {value!s:.80} could not be read."
    return str(value), ""


def _canonical(field: str, name: str, choices: tuple[str, ...]) -> str:
    """The name a list shows for `name`, which may be an alias."""
    if name in choices:
        return name
    try:
        if field.endswith("sampler_name"):
            return find_sampler(name)[0].name
        if field.endswith("scheduler"):
            return find_scheduler(name).label
    except UnknownName:
        return name
    return next((each for each in choices if each.lower() == name.lower()), name)


def _said(ignored: Mapping[str, str]) -> str:
    return f"{ignored['field'].removeprefix('infotext.')} was not taken over: {ignored['reason']}."
