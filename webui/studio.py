"""The page as a whole: the quick settings on top, the tabs below."""

from __future__ import annotations

import gradio as gr

from webui.components.controls import draw, tool
from webui.handlers.checkpoints import checkpoint_lister
from webui.handlers.endpoints import endpoint_lister
from webui.handlers.quick import quick_starter, vae_lister
from webui.handlers.styles import style_lister
from webui.page import TITLE
from webui.params import txt2img as params
from webui.portal import Portal
from webui.tabs.drawing import tie
from webui.tabs.txt2img import txt2img_tab


def build_studio(portal: Portal) -> gr.Blocks:
    """The Blocks of the studio. Nothing in them is private: what a caller may see is asked at each event."""
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)
    ) as blocks:
        with gr.Row(elem_id="quicksettings"):
            # Any name passes here: the list belongs to the caller, and the portal is the one that checks it.
            checkpoint = gr.Dropdown(
                [],
                value=None,
                label="Stable Diffusion checkpoint",
                elem_id="setting_sd_model_checkpoint",
                allow_custom_value=True,
                min_width=260,
                scale=1,
            )
            refresh = tool("Refresh the lists of checkpoints and VAEs", "refresh_sd_model_checkpoint")
            quick = {control.elem_id: draw(control, min_width=120) for control in params.QUICK}
        with gr.Tabs(elem_id="tabs"):
            drawn = txt2img_tab(portal, checkpoint, quick)
        width, height = (drawn[control.elem_id] for control in params.SIZE)
        lists = [drawn[each.elem_id] for each in (params.HIRES_CHECKPOINT, params.REFINER_CHECKPOINT)]
        refreshers = (refresh.click, drawn["txt2img_checkpoint_refresh"].click)
        tie(
            [blocks.load, checkpoint.input, *refreshers],
            checkpoint_lister(portal),
            [checkpoint, width, height],
            [checkpoint, drawn["txt2img_native_size"], *lists],
            trigger_mode="always_last",
        )
        source = drawn["txt2img_card_source"]
        tie(
            drawn["txt2img_card_send"].click,
            checkpoint_lister(portal),
            [source, width, height],
            [checkpoint, drawn["txt2img_native_size"], *lists],
        )
        settings = list(quick.values())
        tie([blocks.load], quick_starter(portal), settings, settings)
        tie([refresh.click], vae_lister(portal), settings[:1], settings[:1])
        endpoint = drawn[params.ENDPOINT.elem_id]
        tie([blocks.load, refresh.click], endpoint_lister(portal), [endpoint], [endpoint])
        styles = drawn[params.STYLES.elem_id]
        tie(blocks.load, style_lister(portal), [styles], [styles])
    return blocks
