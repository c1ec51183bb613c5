"""Bodies, headers and paths made to break something, at a real portal's socket: each is refused in words,
nothing is lost and no memory taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psutil
import pytest

from tests.security.served import Served, served_portal
from tests.security.test_permission_walk import every_step

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_portal(tmp_path_factory.mktemp("games")) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_lost(portal: Served) -> Iterator[None]:
    """What there was before a game is there after it, and the portal answers."""
    before = portal.state()
    yield
    assert portal.state() == before


# --- JSON

BODIES: dict[str, bytes] = {
    "lists without end": b"[" * 100_000 + b"]" * 100_000,
    "objects without end": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "a number of a million digits": b"9" * 1_000_000,
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a name twice": b'{"name": "a", "name": "b"}',
    "a name twice, deep in it": b'{"a": [{"b": 1, "\\u0062": 2}]}',
    "more values than anybody sends": b"[" + b"[]," * 2_000_000 + b"[]]",
    "half a character": b'{"\\ud800": "\\udfff"}',
    "the character NUL": b'{"\\u0000": "\\u0000"}',
    "no UTF-8": b'{"a": "\xff\xfe\xc0\x80"}',
    "half a body": b'{"a": [1, 2',
    "two bodies": b"{}{}",
    "nothing": b"",
    "null": b"null",
    "a comment": b'{"a": 1} // so',
    "a quoted word": b'"' + b"a" * 100_000 + b'"',
}
WORDS = {
    "lists without end": "nested deeper",
    "objects without end": "nested deeper",
    "a number of 5,000 digits": "more than 4,300 digits",
    "not a number": "NaN",
    "infinity": "-Infinity",
    "a name twice": "'name' twice",
    "a name twice, deep in it": "'b' twice",
    "more values than anybody sends": "more than 500,000 values",
    "half a character": "half a character",
    "no UTF-8": "not UTF-8",
}


def reading_json(portal: Served) -> Iterator[tuple[str, str]]:
    """Every operation that takes JSON, with ids of nobody in its path."""
    for path, methods in portal.app.openapi()["paths"].items():
        for method, operation in methods.items():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                yield method.upper(), re.sub(r"{[^}]+}", "7", path)


def test_json_that_is_a_bomb_or_means_two_things_is_refused_by_every_route(portal: Served) -> None:
    headers = {"Content-Type": "application/json"}
    routes = list(reading_json(portal))
    assert len(routes) >= 20
    wrong = {}
    for method, path in routes:
        for what, body in BODIES.items():
            answer = portal.person("root").request(method, path, content=body, headers=headers)
            told = answer.text
            peers = path.startswith(("/sdapi", "/controlnet"))
            good = (400 <= answer.status_code < 500 and "request_id" in told) or peers
            if not good or answer.status_code >= 500 or WORDS.get(what, "") not in told:
                wrong[f"{method} {path}: {what}"] = (answer.status_code, told[:200])
    assert wrong == {}


def test_no_body_of_json_takes_memory_beyond_its_own_size(portal: Served) -> None:
    bombs = (b"[" + b"[]," * (10 * MEBIBYTE) + b"[]]", b'{"a": "' + b"x" * (31 * MEBIBYTE) + b'"}')
    process, headers = psutil.Process(), {"Content-Type": "application/json"}
    before = process.memory_info().rss
    for body in bombs:
        for who in ("", "ann"):
            answer = portal.person(who).post("/api/v1/teams", content=body, headers=headers)
            assert answer.status_code in (401, 403, 422)
            assert process.memory_info().rss - before < 400 * MEBIBYTE
    answer = portal.person("").post("/api/v1/auth/token", content=b"x" * (33 * MEBIBYTE), headers=headers)
    assert answer.status_code == 413


# --- Headers


def test_headers_that_play_games_are_refused_or_change_nothing(portal: Served) -> None:
    host = f"Host: 127.0.0.1:{portal.port}".encode()
    bearer = f"Authorization: Bearer {portal.token('ann')}".encode()
    me, close = b"GET /api/v1/me HTTP/1.1", b"Connection: close"
    post = b"POST /api/v1/teams HTTP/1.1"
    refused: dict[str, tuple[bytes, ...]] = {
        "another host": (me, b"Host: evil.example", bearer),
        "a host with a path": (me, b"Host: 127.0.0.1/evil", bearer),
        "a host with somebody in it": (me, b"Host: 127.0.0.1@evil.example", bearer),
        "no host": (me, bearer),
        "an empty host": (me, b"Host: ", bearer),
        "a header of a mebibyte": (me, host, bearer, b"X-Long: " + b"a" * MEBIBYTE),
        "a header without a name": (me, host, bearer, b": x"),
        "a line feed in a name": (me, host, bearer, b"X\nY: x"),
        "two lengths": (post, host, bearer, b"Content-Length: 2", b"Content-Length: 3"),
        "a length that is none": (post, host, bearer, b"Content-Length: -1"),
        "a length and chunks": (
            post, host, bearer, b"Content-Length: 4", b"Transfer-Encoding: chunked",
        ),
        "two credentials of which one is bad": (me, host, b"Authorization: Bearer x", bearer),
        "a method nobody has": (b"BREW /api/v1/me HTTP/1.1", host, bearer),
        "TRACE": (b"TRACE /api/v1/me HTTP/1.1", host, bearer),
        "CONNECT": (b"CONNECT 169.254.169.254:80 HTTP/1.1", b"Host: 169.254.169.254:80"),
    }  # fmt: skip
    answers = {name: portal.raw(*lines, close, body=b"{}\r\n0\r\n\r\n") for name, lines in refused.items()}
    wrong = {
        name: told[:200] for name, (status, told) in answers.items() if status and not 400 <= status < 500
    }
    assert wrong == {}
    harmless = (
        b"X-Forwarded-For: 10.0.0.1, evil",
        b"X-Forwarded-Host: evil.example",
        b"X-Forwarded-Proto: https",
        b"Forwarded: for=10.0.0.1;host=evil.example;proto=https",
        b"X-Original-URL: /portal/users",
        b"X-Rewrite-URL: /portal/users",
        b"X-HTTP-Method-Override: DELETE",
        b"X-Request-ID: <script>",
        b"X-Many: 1",
        b"Accept-Encoding: gzip;q=2, \xff",
        b"Range: bytes=0-1,0-1,0-1",
    )
    for header in harmless:
        status, told = portal.raw(me, host, bearer, header, header, close)
        assert (status, b'"username":"ann"' in told) == (200, True), header
        assert b"evil" not in told
        assert b"<script>" not in told
        assert b"strict-transport-security" not in told.lower(), "no stranger says that this is https"


def test_no_header_of_an_answer_can_be_made_by_a_request(portal: Served) -> None:
    root = portal.person("root")
    for text in ("a\r\nSet-Cookie: x=1", "a\nX: 1", "%0d%0aSet-Cookie:%20x=1", "\u2028X: 1"):
        for path in (
            "/portal/settings?scope=mine&search=",
            "/portal/login?next=/",
            "/files/",
            "/api/v1/jobs/",
        ):
            answer = root.get(path + base_quoted(text), follow_redirects=False)
            assert "x=1" not in answer.headers.get("set-cookie", "")
            assert "x" not in answer.headers
    form = {"scope": "mine", "search": "a\r\nSet-Cookie: x=1", "key": "samples_format", "value": "png"}
    answer = root.post("/portal/settings", data=form, follow_redirects=False)
    assert (answer.status_code, "set-cookie" in answer.headers) == (303, False)
    root.post("/portal/settings", data=form | {"what": "reset"}, follow_redirects=False)


def base_quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


# --- Paths

PATHS = (
    "..", "../../etc/passwd", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd",
    "..%5c..%5cx", "%252e%252e%252f", "%00", "x%00.png", "%2fetc%2fpasswd", "//etc/passwd",
    "C:%5cWindows%5cwin.ini", "%5c%5chost%5cshare", "%c0%ae%c0%ae%c0%af", "%ff%fe", "\u2025/x", "%e2%80%ae",
    "%ef%bc%8e%ef%bc%8e", "%0a", "%20", "file:%2f%2f%2fetc%2fpasswd", "~root", "a" * 5_000, ".%00.",
    "....//....//etc/passwd", "CON", "*", "%2a", "'",
)  # fmt: skip


def test_no_path_leads_out_of_what_is_served(portal: Served) -> None:
    root = portal.person("root")
    wrong = {}
    for step in every_step(portal.app.routes):
        if "{" not in step.path or step.method not in ("GET", "HEAD", "DELETE"):
            continue
        for name in PATHS:
            # As bytes: a client library would tidy the dots away.
            target = re.sub(r"{[^}]+}", lambda _, name=name: name, step.path).encode()
            status, told = portal.raw(
                f"{step.method} ".encode() + target + b" HTTP/1.1",
                f"Host: 127.0.0.1:{portal.port}".encode(),
                b"Authorization: " + root.headers["authorization"].encode(),
                b"Connection: close",
            )
            if not 400 <= status < 500 or b"root:" in told:
                wrong[f"{step.name} {name[:60]}"] = told[:120]
    assert wrong == {}


# --- What every answer says to the browser

STRICT = {
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
"""Of the portal's pages and answers: no inline script or style, no eval, no markup made of text."""


def test_every_answer_of_the_portal_carries_the_strictest_headers(portal: Served) -> None:
    pages = [step.path for step in every_step(portal.app.routes) if "{" not in step.path]
    pages = [path for path in pages if path.startswith(("/portal", "/docs"))]
    assert len(pages) >= 12
    wrong = {}
    for who in ("", "root"):
        for path in (
            *pages,
            "/portal/nowhere",
            "/api/v1/me",
            "/api/v1/nowhere",
            "/sdapi/v1/options",
            "/healthz",
        ):
            answer = portal.person(who).get(path, follow_redirects=False)
            told = dict(
                line.strip().split(" ", 1) for line in answer.headers["content-security-policy"].split(";")
            )
            framed = answer.headers["x-frame-options"], told["frame-ancestors"]
            good = STRICT.items() <= dict(answer.headers).items() and POLICY.items() <= told.items()
            good &= answer.headers["referrer-policy"] in ("same-origin", "no-referrer")
            if not good or framed not in (("DENY", "'none'"), ("SAMEORIGIN", "'self'")):
                wrong[f"{who} {path}"] = dict(answer.headers)
            if re.search(
                r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|(?:src|href)=.?(?:https?:)?//", answer.text
            ):
                wrong[f"{who} {path}: inline"] = answer.text[:80]
    assert wrong == {}
