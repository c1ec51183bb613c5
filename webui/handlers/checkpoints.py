"""The checkpoint list of the quick settings, and the size a checkpoint draws best at."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError
from webui.params.txt2img import NO_REFINER, SAME_CHECKPOINT
from webui.portal import Portal

Model = dict[str, Any]
Size = tuple[int, int]
Updates = tuple[dict[str, Any], ...]
Handler = Callable[[gr.Request, str | None, int | None, int | None], Awaitable[Updates]]

USUAL: Size = (512, 512)
"""What the form starts with, as in the peer."""

NATIVE_OF_FAMILY: dict[str, Size] = {"sdxl": (1024, 1024)}

EMPTY = "No checkpoint is registered yet. An admin can add one: atelier model import FILE"


def checkpoint_lister(portal: Portal) -> Handler:
    """A handler that fills the dropdown with the checkpoints the caller may use and keeps the one chosen:
    updates of checkpoint, advice, and of the lists for the hires pass and the refiner.

    A size that nobody chose, because it is some checkpoint's own, is to become the chosen checkpoint's own:
    the advice says so, with the size it is for, since another may be typed before it arrives.
    """

    async def list_checkpoints(
        request: gr.Request, chosen: str | None, width: int | None, height: int | None
    ) -> Updates:
        try:
            async with portal.client(request.cookies) as client:
                models = await client.models("checkpoint")
        except AtelierError as error:
            return gr.update(info=error.message), *[gr.skip()] * 3
        titles = [str(each["title"]) for each in models]
        others = (gr.update(choices=[SAME_CHECKPOINT, *titles]), gr.update(choices=[NO_REFINER, *titles]))
        if not models:
            return gr.update(choices=[], value=None, info=EMPTY), gr.skip(), *others
        model = pick(models, chosen)
        listed = gr.update(choices=titles, value=model["title"], info=None)
        if (width, height) not in {USUAL, *(native_size(each) for each in models)}:
            return listed, gr.skip(), *others
        return listed, gr.update(value=advice((width, height), native_size(model))), *others

    return list_checkpoints


def advice(asked: tuple[int | None, int | None], native: Size) -> str:
    """What the page's script reads: the size it was asked for and the one to be, as JSON; a number makes each
    another text, so that the same advice is heard twice.
    """
    return json.dumps({"asked": asked, "native": native, "number": time.time_ns()})


def pick(models: Sequence[Model], chosen: str | None) -> Model:
    """The model of that title, else the standard one, else the first."""
    by_title = next((each for each in models if each["title"] == chosen), None)
    return by_title or next((each for each in models if each.get("standard")), models[0])


def native_size(model: Model) -> Size:
    """The width and height in pixels a checkpoint was trained at: its own word, else its family's usual."""
    stated = model.get("resolution")
    if stated:
        width, height = stated
        return int(width), int(height)
    return NATIVE_OF_FAMILY.get(str(model.get("family") or "").split("-")[0], USUAL)
