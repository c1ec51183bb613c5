"""Gradio's first page made fit for `script-src 'self'`: its inline scripts out, our script and looks in."""

from __future__ import annotations

import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TITLE = "Atelier"

_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>.*?</script>", re.DOTALL | re.IGNORECASE)
_FOREIGN_META = re.compile(rb"<meta\s+(?:property=\"og:|name=\"twitter:)[^>]*>", re.DOTALL)
_HEAD = f"""<title>{TITLE}</title>
<meta name="color-scheme" content="light dark" />
<meta name="description" content="A Stable Diffusion studio for teams" />
<link rel="icon" href="/ui/mark.svg" type="image/svg+xml" />
<link rel="stylesheet" href="/ui/studio.css" />
<link rel="stylesheet" href="/ui/cards.css" />
<link rel="stylesheet" href="/ui/gallery.css" />
<link rel="stylesheet" href="/ui/units.css" />
<script type="module" src="/ui/studio.js"></script>
""".encode()


class FirstPage:
    """ASGI middleware for `/`.

    The largest inline script only repeats GET /config, which the page asks for when it is absent; the others
    serve embedding in a frame, which the policy forbids anyway. Out with them: nothing is left to block.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rewrite the page on its way out; everything else passes as it is."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        # The page is rewritten as text, so it must not come compressed.
        plain = {**scope, "headers": [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]}
        held: dict[str, list[Message]] = {"http.response.start": [], "http.response.body": []}

        async def collect(message: Message) -> None:
            held.setdefault(message["type"], []).append(message)

        await self.app(plain, receive, collect)
        [start] = held["http.response.start"]
        body = b"".join(message.get("body", b"") for message in held["http.response.body"])
        headers = MutableHeaders(scope=start)
        if headers.get("content-type", "").startswith("text/html") and body:
            body = without_inline_scripts(body)
            headers["content-length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})


def without_inline_scripts(html: bytes) -> bytes:
    """`html` with its inline scripts and third parties' metadata gone and our head put in."""
    bare = _FOREIGN_META.sub(b"", _INLINE_SCRIPT.sub(b"", html))
    return bare.replace(b'<meta charset="utf-8" />', b'<meta charset="utf-8" />\n' + _HEAD, 1)
