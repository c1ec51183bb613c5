"""Drawing tables of controls, and tying events the one way this page allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import gradio as gr
from gradio.components import Component

from webui.components.controls import draw
from webui.params.table import Check, Control
from webui.params.txt2img import switch_of

Drawn = dict[str, Component]
"""Element id -> the component drawn for it."""


def each(drawn: Drawn, controls: Sequence[Control], **looks: Any) -> None:
    """Draw `controls` where the layout stands."""
    for control in controls:
        drawn[control.elem_id] = draw(control, **looks)


def row(drawn: Drawn, controls: Sequence[Control], *, elem_id: str, min_width: int = 150) -> None:
    """Draw `controls` side by side."""
    with gr.Row(elem_id=elem_id):
        each(drawn, controls, min_width=min_width)


@contextmanager
def fold(drawn: Drawn, accordion: str, switch: Check) -> Iterator[Component]:
    """An accordion that is open while its header's switch is on, which the style sheet sees to. Gives the
    header's line of text, empty so far.
    """
    if switch.elem_id != switch_of(accordion):
        raise ValueError(f"{switch.elem_id} is no switch of {accordion}")
    with gr.Column(elem_id=accordion, elem_classes=["fold"]):
        with gr.Row(elem_classes=["fold-head"]):
            each(drawn, (switch,), min_width=120, scale=0, container=False)
            line = gr.Button("", elem_id=f"{accordion}_line", elem_classes=["fold-line"], interactive=False)
        with gr.Column(elem_classes=["fold-body"]):
            yield line


def tie(
    events: Callable[..., Any] | Sequence[Callable[..., Any]],
    handler: Callable[..., Any],
    inputs: Sequence[Component],
    outputs: Sequence[Component],
    *,
    trigger_mode: Literal["once", "multiple", "always_last"] = "multiple",
) -> None:
    """Have `events` run `handler`: unqueued, so that any replica answers, and no part of a public API.

    With `always_last`, answers come in the order of the events, whichever of them it was: an older one never
    overtakes a newer one.
    """
    gr.on(
        list(events) if isinstance(events, Sequence) else [events],
        handler,
        inputs=list(inputs),
        outputs=list(outputs),
        queue=False,
        show_progress="hidden",
        trigger_mode=trigger_mode,
        api_visibility="private",
    )
