"""The left column of txt2img, in the peer's order."""

from __future__ import annotations

import gradio as gr

from webui.components.controls import draw, tool
from webui.handlers.endpoints import endpoint_keeper
from webui.handlers.hires import describe_sizes
from webui.params import txt2img as params
from webui.portal import Portal
from webui.tabs.drawing import Drawn, each, fold, row, tie
from webui.tabs.scripts import script_panels


def settings(portal: Portal, drawn: Drawn) -> None:
    """Draw the column."""
    row(drawn, params.SAMPLING, elem_id="sampler_selection_txt2img")
    _hires(drawn)
    _refiner(drawn)
    with gr.Row(elem_id="txt2img_column_size", elem_classes=["size"]):
        with gr.Column(scale=4, min_width=200):
            each(drawn, params.SIZE)
        tool("Swap width and height", "txt2img_res_switch_btn")
        with gr.Column(scale=3, min_width=160):
            each(drawn, params.BATCH)
    each(drawn, params.GUIDANCE)
    _seed(drawn)
    overrides = draw(params.OVERRIDES, visible="hidden", elem_classes=["chips"])
    drawn[params.OVERRIDES.elem_id] = overrides
    # Gone with its last chip, as it came with the first.
    tie(
        overrides.input,
        lambda chips: gr.update(visible=True if chips else "hidden"),
        [overrides],
        [overrides],
    )
    # The page's script fills this one: what extensions add below the seed.
    gr.Column(elem_id="txt2img_units", elem_classes=["units"])
    script_panels(portal, drawn)
    endpoint = draw(params.ENDPOINT)
    drawn[params.ENDPOINT.elem_id] = endpoint
    tie(endpoint.input, endpoint_keeper(portal), [endpoint], [endpoint])
    _tie_sizes(drawn)


def _hires(drawn: Drawn) -> None:
    with fold(drawn, params.HIRES, params.HIRES_SWITCH) as line:
        drawn[f"{params.HIRES}_line"] = line
        row(drawn, params.HIRES_PASS, elem_id="txt2img_hires_fix_row1")
        row(drawn, params.HIRES_SIZE, elem_id="txt2img_hires_fix_row2")
        with gr.Row(elem_id="txt2img_hires_fix_row3"):
            each(drawn, (params.HIRES_CHECKPOINT, *params.HIRES_SAMPLING), min_width=150)
        row(drawn, params.HIRES_PROMPTS, elem_id="txt2img_hires_fix_row4", min_width=200)


def _refiner(drawn: Drawn) -> None:
    with fold(drawn, params.REFINER, params.REFINER_SWITCH), gr.Row(elem_classes=["refiner"]):
        each(drawn, (params.REFINER_CHECKPOINT,), min_width=180)
        drawn["txt2img_checkpoint_refresh"] = tool(
            "Refresh the list of checkpoints", "txt2img_checkpoint_refresh"
        )
        each(drawn, (params.REFINER_SWITCH_AT,), min_width=160)


def _seed(drawn: Drawn) -> None:
    seed, extra, tiling = params.SEED
    with gr.Row(elem_id="txt2img_seed_row", elem_classes=["seed"]):
        each(drawn, (seed,), min_width=120)
        tool("Random seed", "txt2img_random_seed")
        tool("Reuse the seed of the selected picture", "txt2img_reuse_seed")
        each(drawn, (extra, tiling), min_width=80, scale=0, container=False)
    with gr.Column(elem_id="txt2img_seed_extras", elem_classes=["extras"]):
        with gr.Row(elem_classes=["seed"]):
            each(drawn, params.VARIATION[:1], min_width=120)
            tool("Random variation seed", "txt2img_random_subseed")
            tool("Reuse the variation seed of the selected picture", "txt2img_reuse_subseed")
            each(drawn, params.VARIATION[1:], min_width=160)
        row(drawn, params.SEED_RESIZE, elem_id="txt2img_seed_resize", min_width=160)


def _tie_sizes(drawn: Drawn) -> None:
    """The line in the hires header follows everything that decides the final size."""
    deciding = [drawn[each.elem_id] for each in (params.HIRES_SWITCH, *params.SIZE, *params.HIRES_SIZE)]
    tie(
        [control.change for control in deciding],
        describe_sizes,
        deciding,
        [drawn[f"{params.HIRES}_line"]],
        trigger_mode="always_last",
    )
