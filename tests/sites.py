"""Web sites on loopback that stand in for the Hub, a mirror, or somebody who means harm."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Reply = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Answers GET by what was put at a path. `asked` are the requests: (path with query, headers)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                path = unquote(urlsplit(self.path).path)
                self.close_connection = True
                with contextlib.suppress(OSError):  # whoever asked has gone
                    site._replies.get(path, status(404))(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.name = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.name}"

    def put(self, path: str, reply: Reply | bytes) -> str:
        """Answer `path` with a reply, or with bytes as a file; its whole address."""
        self._replies[path] = file(reply) if isinstance(reply, bytes) else reply
        return self.url + path

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for path, _ in self.asked]

    def close(self) -> None:
        """Answer nothing any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def certified(names: Sequence[str], folder: Path) -> tuple[ssl.SSLContext, Path]:
    """(TLS of a server that is certified for `names`, the file of who certified it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own authority")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    return context, certificate


def head(handler: BaseHTTPRequestHandler, code: int, headers: Mapping[str, str]) -> None:
    """Send the beginning of an answer."""
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def file(data: bytes, **headers: str) -> Reply:
    """A file as a decent server gives it: with its length, an ETag, and pieces of it."""
    etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    more = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(handler: BaseHTTPRequestHandler) -> None:
        start = 0
        asked = handler.headers.get("Range", "")
        if asked and handler.headers.get("If-Range", etag) == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        told = {"Content-Length": str(len(data) - start), "ETag": etag, **more}
        if start:
            told["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        head(handler, 206 if start else 200, told)
        handler.wfile.write(data[start:])

    return reply


def broken(data: bytes, after: int, then: Reply | None = None) -> Reply:
    """The first answer breaks off after so many bytes; later ones are `then`, or the file."""
    whole, times = then or file(data), [0]

    def reply(handler: BaseHTTPRequestHandler) -> None:
        times[0] += 1
        if times[0] > 1:
            whole(handler)
            return
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        head(handler, 200, {"Content-Length": str(len(data)), "ETag": etag})
        handler.wfile.write(data[:after])

    return reply


def redirect(to: str, code: int = 302, **headers: str) -> Reply:
    """Somewhere else."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: head(handler, code, {"Location": to, "Content-Length": "0", **more})


def status(code: int, body: bytes = b"", **headers: str) -> Reply:
    """A status, with a body."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(handler: BaseHTTPRequestHandler) -> None:
        head(handler, code, {"Content-Length": str(len(body)), **more})
        handler.wfile.write(body)

    return reply


def publish(
    site: Site,
    repository: str,
    files: Mapping[str, bytes],
    *,
    commit: str = "c0ffee" * 6 + "beef",
    token: str = "",
    cdn: Site | None = None,
) -> None:
    """Let `site` answer as the Hub does about a repository: the list of its files, and each of them; large
    ones from `cdn`, where there is one. With a `token` it is gated, and opens to that alone.
    """
    siblings = []
    for path, data in files.items():
        large = len(data) > 1000 or not path.endswith(".json")
        digest = hashlib.sha256(data).hexdigest()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        each: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git}
        reply = file(data)
        if large:
            each["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 135}
            if cdn is not None:
                where = cdn.put(f"/lfs/{digest}", file(data)) + "?X-Amz-Signature=abcdef0123456789"
                reply = redirect(where, X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(data)))
        siblings.append(each)
        site.put(f"/{repository}/resolve/{commit}/{path}", gated(reply, token))
    told = json.dumps({"id": repository, "sha": commit, "gated": bool(token), "siblings": siblings}).encode()
    site.put(f"/api/models/{repository}/revision/main", status(200, told))


def gated(reply: Reply, token: str) -> Reply:
    """A reply for who brings `token`: to others what the Hub says of a licence that was not accepted."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "")
        if not token or given == f"Bearer {token}":
            reply(handler)
        elif given:
            status(403, b"gated", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")(handler)
        else:
            status(401, b"gated", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")(handler)

    return answer
