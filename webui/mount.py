"""The one place where Gradio is mounted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import gradio as gr
from fastapi import FastAPI, Request

from webui.theme import atelier_theme

Auth = Callable[[Request], Awaitable[str | None]]


def mount(app: FastAPI, blocks: gr.Blocks, auth: Auth) -> None:
    """Mount `blocks` at the root of `app`, for the people whom `auth` names.

    Mounting skips a check that launching makes: until `has_launched` is set, a submitted file reference is
    believed without having been uploaded, and so names any file this process can read. Hence this function,
    and no other.
    """
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=auth,
        theme=atelier_theme(),
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="1b",
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    blocks.has_launched = True
