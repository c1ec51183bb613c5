"""Prompt styles: the list, and putting the chosen ones into the prompts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from atelier.contract.errors import AtelierError
from atelier.prompt import styles as language
from webui.portal import Portal

Style = Mapping[str, Any]
Updates = tuple[dict[str, Any], ...]


def style_lister(portal: Portal) -> Callable[[gr.Request, list[str] | None], Awaitable[dict[str, Any]]]:
    """A handler that fills the dropdown with the caller's styles and keeps the chosen ones that still
    exist.
    """

    async def list_styles(request: gr.Request, chosen: list[str] | None) -> dict[str, Any]:
        try:
            async with portal.client(request.cookies) as client:
                names = [str(each["name"]) for each in await client.styles()]
        except AtelierError:
            # The same failure stands at the list of checkpoints, with its sentence.
            return dict(gr.skip())
        return dict(gr.update(choices=names, value=[name for name in chosen or () if name in names]))

    return list_styles


def style_applier(
    portal: Portal,
) -> Callable[[gr.Request, str | None, str | None, list[str] | None], Awaitable[Updates]]:
    """A handler that writes the chosen styles into both prompts and empties the choice."""

    async def apply_styles(
        request: gr.Request, prompt: str | None, negative: str | None, chosen: list[str] | None
    ) -> Updates:
        try:
            async with portal.client(request.cookies) as client:
                known = await client.styles()
        except AtelierError:
            return gr.skip(), gr.skip(), gr.skip()
        styled = with_styles(prompt or "", negative or "", chosen or (), known)
        return gr.update(value=styled[0]), gr.update(value=styled[1]), gr.update(value=[])

    return apply_styles


def with_styles(prompt: str, negative: str, chosen: Sequence[str], known: Sequence[Style]) -> tuple[str, str]:
    """Both prompts with the chosen styles put around or behind them, in the order they were chosen."""
    by_name = {each["name"]: each for each in known}
    for style in (by_name[name] for name in chosen if name in by_name):
        prompt = language.apply(prompt, str(style.get("prompt") or ""))
        negative = language.apply(negative, str(style.get("negative_prompt") or ""))
    return prompt, negative
