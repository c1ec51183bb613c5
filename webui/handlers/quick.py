"""The quick settings beside the checkpoint: the list of VAEs, and what the caller's own settings say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError
from webui.params.txt2img import OPTION_OF, QUICK, VAE
from webui.portal import Portal

Update = dict[str, Any]


def vae_lister(portal: Portal) -> Callable[[gr.Request, str | None], Awaitable[Update]]:
    """A handler that fills the list of VAEs and keeps the chosen one."""

    async def list_vaes(request: gr.Request, chosen: str | None) -> Update:
        try:
            return dict(gr.update(choices=await _vaes(portal, request), value=chosen or VAE.default))
        except AtelierError:
            # The same failure stands at the list of checkpoints, with its sentence.
            return dict(gr.skip())

    return list_vaes


def quick_starter(portal: Portal) -> Callable[..., Awaitable[tuple[Update, ...]]]:
    """A handler that fills the quick settings as the caller's own settings say, with the list of VAEs."""

    async def start(request: gr.Request, *chosen: Any) -> tuple[Update, ...]:
        try:
            vaes = await _vaes(portal, request)
            caller = await portal.caller(request.cookies) or {}
        except AtelierError:
            return tuple(dict(gr.skip()) for _ in QUICK)
        settings = caller.get("settings") or {}
        updates = []
        for control, value in zip(QUICK, chosen, strict=True):
            own = settings.get(OPTION_OF[control.elem_id])
            kept = own if own is not None and value in (None, control.default) else value
            updates.append(dict(gr.update(value=kept, **({"choices": vaes} if control is VAE else {}))))
        return tuple(updates)

    return start


async def _vaes(portal: Portal, request: gr.Request) -> list[str]:
    async with portal.client(request.cookies) as client:
        return [*VAE.choices, *(str(each["filename"]) for each in await client.models("vae"))]
