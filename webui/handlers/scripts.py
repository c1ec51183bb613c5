"""The scripts' panels: which one is in sight, and what the axes of the X/Y/Z plot offer."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError
from webui.params.scripts import CALLERS_AXES, CHOICES_OF_AXIS, PANELS
from webui.portal import Portal, StudioClient

Update = dict[str, Any]
AXIS_PARTS = 3
"""Controls of an axis: type, typed values, picked values. An update of it has a fourth, for the button that
fills in everything.
"""


PANEL, AWAY = "script-panel", "put-away"
"""Classes of a panel, and of one that is not in sight: a column that Gradio hides would lose its contents."""


def panels_of(title: str | None) -> tuple[Update, ...]:
    """One update per panel: the chosen script's is in sight, the others keep what is written in them."""
    return tuple(gr.update(elem_classes=[PANEL] if each == title else [PANEL, AWAY]) for each in PANELS)


async def choices_of(client: StudioClient, axis: str | None) -> list[str]:
    """The values that `axis` offers, none where they are typed. Raises AtelierError."""
    kind, *more = CALLERS_AXES.get(axis or "", ("",))
    match kind:
        case "style":
            return [str(each["name"]) for each in await client.styles()]
        case "vae":
            return [*more, *(str(each["filename"]) for each in await client.models("vae"))]
        case "checkpoint":
            return [
                *more,
                *sorted((str(each["title"]) for each in await client.models("checkpoint")), key=str.lower),
            ]
    return list(CHOICES_OF_AXIS.get(axis or "", ()))


def axis_updates(
    axis: str | None, typed: str | None, picked: Sequence[str] | None, csv_mode: bool, choices: Sequence[str]
) -> tuple[Update, Update, Update, Update]:
    """Updates of one axis: what was typed and is on the list is picked when the list comes into sight, and
    the other way round.
    """
    picking = bool(choices) and not csv_mode
    wanted = [*(picked or ()), *(each for each in split(typed or "") if each not in (picked or ()))]
    kept = [each for each in wanted if each in choices]
    text = joined(kept) if choices and csv_mode and not typed else typed or ""
    return (
        gr.update(value=axis),
        gr.update(value="" if picking else text, visible="hidden" if picking else True),
        gr.update(choices=list(choices), value=kept if picking else [], visible=picking or "hidden"),
        gr.update(elem_classes=["tool"] if choices else ["tool", "idle"]),
    )


def axes_shower(portal: Portal) -> Callable[..., Awaitable[tuple[Update, ...]]]:
    """A handler over `csv_mode` and the controls of any number of axes: each shows its own kind of values."""

    async def show_axes(request: gr.Request, csv_mode: bool, *values: Any) -> tuple[Update, ...]:
        updates: list[Update] = []
        try:
            async with portal.client(request.cookies) as client:
                for start in range(0, len(values), AXIS_PARTS):
                    axis, typed, picked = values[start : start + AXIS_PARTS]
                    updates += axis_updates(axis, typed, picked, csv_mode, await choices_of(client, axis))
        except AtelierError:
            return tuple(gr.skip() for _ in range(len(values) // AXIS_PARTS * (AXIS_PARTS + 1)))
        return tuple(updates)

    return show_axes


def axes_swapper(portal: Portal) -> Callable[..., Awaitable[tuple[Update, ...]]]:
    """A handler like the shower's for two axes, which exchanges them."""
    show = axes_shower(portal)

    async def swap_axes(request: gr.Request, csv_mode: bool, *values: Any) -> tuple[Update, ...]:
        return await show(request, csv_mode, *values[AXIS_PARTS:], *values[:AXIS_PARTS])

    return swap_axes


def axis_filler(portal: Portal) -> Callable[..., Awaitable[tuple[Update, Update]]]:
    """A handler that writes every value an axis offers into its field, as a list or as text."""

    async def fill_axis(
        request: gr.Request, csv_mode: bool, axis: str | None, typed: str | None, picked: list[str] | None
    ) -> tuple[Update, Update]:
        try:
            async with portal.client(request.cookies) as client:
                choices = await choices_of(client, axis)
        except AtelierError:
            return gr.skip(), gr.skip()
        if not choices:
            return gr.skip(), gr.skip()
        if csv_mode:
            return gr.update(value=joined(choices)), gr.skip()
        return gr.skip(), gr.update(value=choices)

    return fill_axis


def split(text: str) -> list[str]:
    """The values of a comma-separated line, quotes and all."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [value.strip() for row in rows for value in row if value.strip()]


def joined(values: Sequence[str]) -> str:
    """Values as one comma-separated line that `split` takes apart again."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()
