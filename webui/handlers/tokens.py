"""The token counters at the prompts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import gradio as gr

from atelier.contract.errors import AtelierError
from atelier.contract.limits import MAX_PROMPT_CHARACTERS
from atelier.prompt.chunks import count_prompt
from atelier.prompt.syntax import problems
from webui.handlers.styles import Style, with_styles
from webui.portal import Portal

EMPTY = "0/75"
MARK = "⚠"
"""In front of a counter that has something to complain of: the style sheet shows it in red."""

Counter = Callable[
    [gr.Request, str | None, str | None, list[str] | None, int | None], Awaitable[tuple[str, str]]
]


def token_counter(portal: Portal) -> Counter:
    """A handler that counts both prompts with the chosen styles in them, at the step that takes most."""

    async def count_tokens(
        request: gr.Request,
        prompt: str | None,
        negative: str | None,
        chosen: list[str] | None,
        steps: int | None,
    ) -> tuple[str, str]:
        known: list[Style] = []
        if chosen:
            try:
                async with portal.client(request.cookies) as client:
                    known.extend(await client.styles())
            except AtelierError:
                known = []
        positive, negative = with_styles(prompt or "", negative or "", chosen or (), known)
        return tokens(positive, steps or 1), tokens(negative, steps or 1, positive=False)

    return count_tokens


def tokens(prompt: str, steps: int = 20, *, positive: bool = True) -> str:
    """Tokens used and room for them, "7/75", at the step that takes most. What is wrong with the prompt
    stands in front: "⚠ 1 ( is not closed. 7/75".
    """
    wrong = problems(prompt)
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"{MARK} {wrong[0]}"
    used, room = count_prompt(prompt, steps, positive=positive)
    return " ".join([*([MARK, *wrong] if wrong else []), f"{used}/{room}"])
