"""The smallest web application on a studio: a form with a prompt, a width and a length, and the picture.

    ATELIER_URL=https://studio.example.com ATELIER_KEY=... ATELIER_ENDPOINT=portraits python webapp.py

Standard library alone. The key stays in this process; whoever opens the page draws on its owner's account, so
it listens on this machine only.
"""

from __future__ import annotations

import html
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 5000
PATIENCE = 600.0
LARGEST = 64 * 1024
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Picture</title>
<form method="post"><p><label>Prompt <input name="prompt" size="60" required value="{prompt}"></label></p>
<p><label>Width <input name="width" type="number" step="8" value="{width}"></label>
<label>Length <input name="length" type="number" step="8" value="{length}"></label></p>
<p><button>Draw</button></p></form>{result}</html>"""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; img-src data:; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
}


class Studio:
    """Has pictures made by one endpoint of a studio."""

    def __init__(self, url: str, key: str, endpoint: str) -> None:
        query = urllib.parse.urlencode({"endpoint_name": endpoint})
        self._url, self._key = f"{url.rstrip('/')}/inference?{query}", key

    def picture(self, body: dict[str, Any], wait: Callable[[float], object] = time.sleep) -> str:
        """A JPEG in base64. Raises ValueError with the studio's sentence, TimeoutError."""
        status, told = self._ask(self._url, json.dumps(body).encode())
        where, waited = str(told.get("status_url", "")), 0.0
        while status == 202:
            if waited > PATIENCE:
                raise TimeoutError("The picture is not there yet. It goes on; look at the studio for it.")
            wait(1.0)
            waited += 1.0
            status, told = self._ask(where)
        return str(told["generated_images"][0])

    def _ask(self, url: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]["message"]) from error


def serve(studio: Studio, port: int = PORT) -> ThreadingHTTPServer:
    """The application, ready to `serve_forever`, on this machine alone."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._show({"prompt": "", "width": "512", "length": "512"}, "")

        def do_POST(self) -> None:
            if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
                self.send_error(403, "The form was sent by another site")
                return
            text = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), LARGEST)).decode()
            form = dict(urllib.parse.parse_qsl(text))
            given = {name: form.get(name, "") for name in ("prompt", "width", "length")}
            try:
                sides = {"width": int(given["width"]), "height": int(given["length"])}
                data = studio.picture({"prompt": given["prompt"], **sides})
                result = f'<img alt="" src="data:image/jpeg;base64,{data}">'
            except (ValueError, TimeoutError) as error:
                result = f'<p role="alert">{html.escape(str(error))}</p>'
            self._show(given, result)

        def _show(self, given: dict[str, str], result: str) -> None:
            fields = {name: html.escape(value) for name, value in given.items()}
            page = PAGE.format(**fields, result=result).encode()
            self.send_response(200)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing of what people type is written anywhere."""

    return ThreadingHTTPServer(("127.0.0.1", port), Page)


if __name__ == "__main__":
    given = (os.environ[name] for name in ("ATELIER_URL", "ATELIER_KEY", "ATELIER_ENDPOINT"))
    print(f"http://127.0.0.1:{PORT}")
    serve(Studio(*given)).serve_forever()
