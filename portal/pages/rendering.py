"""Templates and static files of the package, and how a failure looks to a person."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from atelier.contract.errors import AtelierError, NotAuthenticated, NotFound
from atelier.contract.timeline import PHASES
from portal.api.arrival import arrived
from portal.api.gate import CSP

LOGIN = "/portal/login"
STATIC = "/portal/static"
FRAMED = {
    "Content-Security-Policy": CSP.replace("frame-ancestors 'none'", "frame-ancestors 'self'"),
    "X-Frame-Options": "SAMEORIGIN",
}
"""What lets the web UI, which is of our own origin, show a page in a frame; no other site can."""
SAFE_METHODS = ("GET", "HEAD")
HEADINGS = {
    401: "Log in first",
    403: "Not yours to do",
    404: "Nothing here",
    413: "Too large",
    429: "One moment",
    500: "Something went wrong",
}


def page(request: Request, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    """The rendered template. `caller` is the one the route's permission found, None on public pages."""
    caller = getattr(request.state, "caller", None)
    html = _environment().get_template(template).render(caller=caller, path=request.url.path, **values)
    return HTMLResponse(html, status_code, headers=FRAMED)


def to_login(request: Request) -> RedirectResponse:
    """Off to the login page, and back here afterwards."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{LOGIN}?{urlencode({'next': request.url.path + query})}", 303)


def local_path(path: str) -> str:
    """`path` if it stays on our origin, else `/`: where to go after the login is not for other sites to
    say.
    """
    plain = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if plain and path.isprintable() and "\\" not in path else "/"


def as_page(request: Request, error: AtelierError, cause: Exception) -> Response:
    """/portal: a person who is not logged in goes to the login page; any other failure is a page with a
    request id.
    """
    if isinstance(error, NotAuthenticated) and request.method in SAFE_METHODS:
        return to_login(request)
    status = error.http_status
    return page(
        request,
        "error.html",
        status,
        status=status,
        heading=HEADINGS.get(status, "That did not work"),
        message=error.message,
        request_id=arrived(request).request_id,
    )


@cache
def static_file(name: str) -> tuple[bytes, str, str]:
    """(bytes, media type, ETag) of a static file of the package. Raises NotFound; no path of the user's is
    opened.
    """
    known = {each.name: each for each in files("portal.pages").joinpath("static").iterdir()}
    if name not in known:
        raise NotFound("There is no such file.")
    content = known[name].read_bytes()
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def static_url(name: str) -> str:
    """The address of a static file; it changes with the file, so browsers may keep it."""
    return f"{STATIC}/{quote(name)}?v={static_file(name)[2].strip(chr(34))}"


def moment(seconds: float | None) -> str:
    """Unix seconds as people read them, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else "never"


def duration(seconds: float | None) -> str:
    """Seconds as people read them: "0.4 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def money(amount: float) -> str:
    """An amount in the studio's own currency."""
    return f"{amount:,.2f}" if not 0 < amount < 0.01 else "< 0.01"


def counted(counts: Mapping[str, int]) -> str:
    """Counts as a phrase: "1 admin, 3 designer"."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("portal.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["moment"] = moment
    environment.filters["duration"] = duration
    environment.filters["money"] = money
    environment.globals["phases"] = PHASES
    environment.globals["static"] = static_url
    environment.globals["counted"] = counted
    return environment
