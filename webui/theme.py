"""Colours, type and measures: graphite and paper, with the orange that people know from the peer's Generate
button.
"""

from __future__ import annotations

from gradio.themes import Base, Color

SANS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Noto Sans",
    "Arial",
    "sans-serif",
)
MONO = ("ui-monospace", "SF Mono", "Cascadia Code", "Consolas", "Noto Sans Mono", "monospace")

EMBER = Color(
    "#fff5ee",
    "#ffe8d8",
    "#ffceb0",
    "#ffac7c",
    "#ff8647",
    "#f76b1c",
    "#c2490a",
    "#9f3a0a",
    "#7d300e",
    "#5f270e",
    "#361305",
    name="ember",
)
GRAPHITE = Color(
    "#faf9f7",
    "#f3f1ee",
    "#e5e2dd",
    "#cfcbc4",
    "#9d988f",
    "#6f6a62",
    "#56524b",
    "#403d38",
    "#2a2825",
    "#1d1c1a",
    "#141312",
    name="graphite",
)


SURFACES = {
    "body_background_fill": "*neutral_50",
    "body_background_fill_dark": "*neutral_900",
    "body_text_color": "*neutral_900",
    "body_text_color_dark": "*neutral_100",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_400",
    "background_fill_primary": "#ffffff",
    "background_fill_primary_dark": "#242321",
    "background_fill_secondary": "*neutral_100",
    "background_fill_secondary_dark": "*neutral_900",
    "block_background_fill": "transparent",
    "block_background_fill_dark": "transparent",
    "block_border_width": "0px",
    "block_border_width_dark": "0px",
    "block_shadow": "none",
    "block_shadow_dark": "none",
    "block_padding": "0px",
    "block_label_text_color": "*neutral_600",
    "block_label_text_color_dark": "*neutral_400",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_300",
    "block_title_text_size": "*text_sm",
    "block_title_text_weight": "500",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_400",
    "border_color_primary": "*neutral_300",
    "border_color_primary_dark": "#45423d",
}
"""Pages, blocks, labels and lines."""

INPUTS = {
    "input_background_fill": "#ffffff",
    "input_background_fill_dark": "#161514",
    "input_border_color": "*neutral_300",
    "input_border_color_dark": "#45423d",
    "input_border_color_focus": "*primary_600",
    "input_border_color_focus_dark": "*primary_400",
    "input_border_width": "1px",
    "input_border_width_dark": "1px",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px rgba(194, 73, 10, 0.18)",
    "input_shadow_focus_dark": "0 0 0 3px rgba(255, 134, 71, 0.22)",
    "slider_color": "*primary_600",
    "slider_color_dark": "*primary_400",
    "checkbox_background_color_selected": "*primary_600",
    "checkbox_background_color_selected_dark": "*primary_400",
    "checkbox_border_color_selected": "*primary_600",
    "checkbox_border_color_selected_dark": "*primary_400",
}
"""What is typed into, dragged or ticked."""

BUTTONS = {
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_400",
    "button_primary_background_fill_hover_dark": "*primary_300",
    "button_primary_text_color": "#ffffff",
    "button_primary_text_color_dark": "#201004",
    "button_primary_text_color_hover_dark": "#201004",
    "button_secondary_background_fill": "#ffffff",
    "button_secondary_background_fill_hover": "*neutral_100",
    "button_secondary_background_fill_dark": "#2f2d2a",
    "button_secondary_background_fill_hover_dark": "#3a3733",
    "button_secondary_text_color": "*neutral_800",
    "button_secondary_text_color_dark": "*neutral_100",
    "button_secondary_border_color": "*neutral_300",
    "button_secondary_border_color_dark": "#45423d",
    "button_border_width": "1px",
}
"""Primary is the orange one; everything else is secondary."""


def atelier_theme() -> Base:
    """The Gradio theme. Fonts are the system's: nothing is fetched."""
    theme = Base(
        primary_hue=EMBER,
        secondary_hue=EMBER,
        neutral_hue=GRAPHITE,
        font=SANS,
        font_mono=MONO,
        text_size="sm",
        spacing_size="sm",
        radius_size="md",
    )
    return theme.set(**SURFACES, **INPUTS, **BUTTONS)
