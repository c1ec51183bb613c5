"""Behind CloudFront: it sends people to https and speaks http to the load balancer, which tells of that hop
alone. What a person sees is https, and so are the links of the page.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

FORWARDED_PROTO = b"x-forwarded-proto"


class Edge:
    """ASGI middleware, outside of everything that asks for a request's scheme."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as one over https."""
        if scope["type"] == "http":
            told = [(name, value) for name, value in scope["headers"] if name != FORWARDED_PROTO]
            scope = {**scope, "scheme": "https", "headers": [*told, (FORWARDED_PROTO, b"https")]}
        await self._app(scope, receive, send)
