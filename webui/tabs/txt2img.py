"""The txt2img tab, laid out like the peer's: prompts and Generate on top, settings left, pictures right."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from webui.components.controls import draw, tool
from webui.handlers.generate import generator
from webui.handlers.paste import PASTED, paster
from webui.handlers.styles import style_applier, style_lister
from webui.handlers.tokens import EMPTY, token_counter
from webui.handlers.upscale import upscaler
from webui.params import txt2img as params
from webui.params.form import FORM
from webui.params.table import Control
from webui.portal import Portal
from webui.tabs.drawing import Drawn, tie
from webui.tabs.txt2img_settings import settings

SIGNALS = (
    "ticket",
    "native_size",
    "upscale_source",
    "upscale_send",
    "styles_refresh",
    "card_source",
    "units_source",
    "card_send",
)
"""Hidden components through which handlers and the page's script talk, by the end of their ids."""


def txt2img_tab(portal: Portal, checkpoint: gr.Dropdown, quick: Drawn) -> Drawn:
    """Draw the tab and tie its buttons to the portal. `checkpoint` and `quick` are the quick settings above
    the tabs.

    Returns the components by element id.
    """
    drawn: Drawn = dict(quick)
    with gr.Tab("txt2img", id="txt2img", elem_id="tab_txt2img"):
        with gr.Row(elem_id="txt2img_toprow", elem_classes=["toprow"]):
            with gr.Column(scale=6, min_width=320, elem_classes=["prompts"]):
                for control in params.PROMPTS:
                    _prompt(drawn, control)
            _actions(drawn)
        # The page's script fills this one and the column of cards: cards are many, and no form.
        gr.Column(elem_id="txt2img_extra_tabs", elem_classes=["extra-tabs"])
        with gr.Row(elem_id="txt2img_panels", elem_classes=["panels"]):
            with gr.Column(elem_id="txt2img_settings", elem_classes=["settings"], min_width=320):
                settings(portal, drawn)
            gr.Column(elem_id="txt2img_extra_networks", elem_classes=["cards"], min_width=320)
            # The page's script fills this column: pictures come from /files, never through Gradio.
            gr.Column(elem_id="txt2img_results", elem_classes=["results"], min_width=320)
        _signals(drawn)
    _tie_jobs(portal, drawn, checkpoint)
    _tie_prompts(portal, drawn)
    return drawn


def _prompt(drawn: Drawn, control: Control) -> None:
    """A prompt with its token counter."""
    counter = params.COUNTERS[control.elem_id]
    with gr.Group(elem_classes=["prompt"]):
        drawn[control.elem_id] = draw(control, show_label=False, container=False)
        drawn[counter] = gr.Button(EMPTY, elem_id=counter, elem_classes=["token-counter"])


def _actions(drawn: Drawn) -> None:
    """Generate with Interrupt and Skip over it, the tools, and the styles."""
    with gr.Column(scale=1, min_width=220, elem_id="txt2img_actions_column", elem_classes=["actions"]):
        with gr.Row(elem_id="txt2img_generate_box", elem_classes=["generate-box"]):
            gr.Button("Interrupt", elem_id="txt2img_interrupt", elem_classes=["interrupt"], min_width=80)
            gr.Button("Skip", elem_id="txt2img_skip", elem_classes=["skip"], min_width=80)
            drawn["txt2img_generate"] = gr.Button(
                "Generate", elem_id="txt2img_generate", variant="primary", min_width=120
            )
        with gr.Row(elem_id="txt2img_tools", elem_classes=["tools"]):
            drawn["paste"] = tool("Read generation parameters from the prompt or your last picture", "paste")
            tool("Clear the prompts", "txt2img_clear_prompt")
            drawn["txt2img_style_apply"] = tool(
                "Write the chosen styles into the prompts", "txt2img_style_apply"
            )
            tool("Show the last pictures again", "txt2img_restore_progress")
            tool("Keyboard shortcuts", "txt2img_keys")
        with gr.Row(elem_id="txt2img_styles_row", elem_classes=["styles-row"]):
            styles = draw(params.STYLES, show_label=False, container=False, min_width=120)
            drawn[params.STYLES.elem_id] = styles
            tool("Edit styles", "txt2img_styles_edit_button")


def _signals(drawn: Drawn) -> None:
    for name in SIGNALS:
        elem_id = f"txt2img_{name}"
        if name.endswith("_source"):
            drawn[elem_id] = gr.Textbox("", label=name, elem_id=elem_id, visible="hidden")
        else:
            drawn[elem_id] = gr.Button("", elem_id=elem_id, visible="hidden")


def _tie_jobs(portal: Portal, drawn: Drawn, checkpoint: gr.Dropdown) -> None:
    """Generate, upscale and paste: each answers with the ticket the script watches."""
    form = [drawn[control.elem_id] for control in FORM]
    beside = drawn["txt2img_units_source"]
    ticket: Component = drawn["txt2img_ticket"]
    endpoint = drawn[params.ENDPOINT.elem_id]
    tie(drawn["txt2img_generate"].click, generator(portal), [checkpoint, endpoint, *form, beside], [ticket])
    source = drawn["txt2img_upscale_source"]
    tie(drawn["txt2img_upscale_send"].click, upscaler(portal), [source, endpoint, *form], [ticket])
    tie(
        drawn["paste"].click,
        paster(portal),
        [drawn["txt2img_prompt"]],
        [ticket, *(drawn[each] for each in PASTED)],
    )


def _tie_prompts(portal: Portal, drawn: Drawn) -> None:
    """Token counters and styles."""
    prompts = [drawn[control.elem_id] for control in params.PROMPTS]
    styles, steps = drawn[params.STYLES.elem_id], drawn["txt2img_steps"]
    counters = [drawn[params.COUNTERS[control.elem_id]] for control in params.PROMPTS]
    counted = [*prompts, styles, steps]
    tie(
        [component.change for component in counted],
        token_counter(portal),
        counted,
        counters,
        trigger_mode="always_last",
    )
    tie(drawn["txt2img_style_apply"].click, style_applier(portal), [*prompts, styles], [*prompts, styles])
    tie(drawn["txt2img_styles_refresh"].click, style_lister(portal), [styles], [styles])
