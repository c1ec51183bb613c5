"""What the browser and programs get while the portal does not answer: the cause, and a page that tries again
by itself.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from atelier import logs
from atelier.contract.errors import WorkerUnavailable

RETRY_S = 3

SENTENCE = "The portal does not answer. It may be starting or restarting; nothing that was accepted is lost."

_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Atelier is waiting for its portal</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{RETRY_S}"><link rel="stylesheet" href="/ui/waiting.css"></head>
<body><main role="status"><p class="mark" aria-hidden="true"></p><h1>One moment</h1><p>{SENTENCE}</p>
<p class="hint">This page tries again every {RETRY_S} seconds. If it stays, look at the portal's log
(<code>logs/</code> in the data directory) or ask an admin.</p></main></body></html>
"""


def unavailable(request: Request) -> Response:
    """503 for this request, as a page for people and as our error body for programs."""
    headers = {"Retry-After": str(RETRY_S), "Cache-Control": "no-store"}
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_PAGE, status_code=503, headers=headers)
    error = WorkerUnavailable(f"{SENTENCE} Try again in a moment.").body()
    body = {"error": error, "request_id": logs.current().get("request_id", "")}
    return JSONResponse(body, status_code=503, headers=headers)
