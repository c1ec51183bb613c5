"""Addresses and pictures that were made to do harm: no address is asked, no picture takes memory or brings
anything along, and what is refused is refused in words.
"""

from __future__ import annotations

import ast
import base64
import io
import resource
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from tests.addresses import ADDRESSES
from tests.jobs_studio import PAYLOAD
from tests.security.served import Served, served_portal
from webui.portal import Portal
from webui.proxy import add_portal_routes

MEBIBYTE = 2**20
PICTURE_LIMIT = "at most 80,000,000 in all"


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_portal(tmp_path_factory.mktemp("pictures")) as made:
        yield made


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """The address of somebody on this machine who writes down who comes."""
    came: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    came.append(line.recv(100))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", came
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


# --- Addresses


def model_of(portal: Served) -> str:
    return str(portal.person("root").get("/api/v1/models").json()[0]["id"])


def test_no_address_is_ever_asked_and_each_is_refused_where_a_picture_is_meant(
    portal: Served, listener: tuple[str, list[bytes]]
) -> None:
    place, came = listener
    root, model = portal.person("root"), model_of(portal)
    wrong = {}
    for address in (*ADDRESSES, f"http://{place}/x.png", f"http://x@{place}/", f"//{place}/x"):
        answers = {
            "infotext": root.post("/api/v1/infotext", json={"image": address}),
            "png-info": root.post("/sdapi/v1/png-info", json={"image": address}),
            "preview": root.put(f"/api/v1/models/{model}/preview", content=address.encode()),
            "own picture": root.put(f"/api/v1/models/{model}/preview", params={"picture": address[:64]}),
            "standard": root.put("/api/v1/models/standard", json={"name": address}),
            "thumb": root.get("/sd_extra_networks/thumb", params={"filename": address[:64]}),
            "checkpoint": root.post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD, "model": address}),
            "endpoint": root.post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD, "endpoint": address}),
            "upload": root.post(
                "/api/v1/models/upload", params={"kind": "lora", "filename": address}, content=b"x"
            ),
        }
        for where, answer in answers.items():
            if answer.status_code not in (404, 422):
                wrong[f"{where} {address}"] = (answer.status_code, answer.text[:200])
        said = answers["infotext"].json()["error"]["message"]
        if "addresses are not fetched" not in said and "no picture" not in said:
            wrong[f"words {address}"] = (422, said)
    assert wrong == {}
    assert came == []


def controlnet(address: str) -> dict[str, Any]:
    return {"alwayson_scripts": {"controlnet": {"args": [{"image": address, "model": "x"}]}}}


def test_a_field_of_the_peer_that_means_a_picture_changes_nothing_and_is_told(
    portal: Served, listener: tuple[str, list[bytes]]
) -> None:
    place, came = listener
    address = f"http://{place}/x.png"
    for field in ({"firstpass_image": address}, controlnet(address)):
        answer = portal.person("ann").post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD | field})
        assert answer.status_code == 202
        [ignored] = answer.json()["info"]["atelier"]["ignored"]
        assert ignored["field"].split(".")[0] in field
    enabled = controlnet(address)
    enabled["alwayson_scripts"]["controlnet"]["args"][0]["enabled"] = True
    answer = portal.person("ann").post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD | enabled})
    assert answer.status_code == 422
    assert "addresses are not fetched" in answer.json()["error"]["message"]
    refused = portal.person("ann").post(
        "/api/v1/jobs", json={"txt2img_payload": PAYLOAD, "init_images": [f"http://{place}/x.png"]}
    )
    assert refused.status_code == 422
    assert came == []


def test_nothing_that_answers_people_has_a_client_to_ask_others_with(repository: Path) -> None:
    clients = {"httpx", "requests", "urllib3", "aiohttp", "http", "urllib.request", "ftplib", "socket"}
    found = set()
    for room in ("api", "pages", "services", "domain"):
        for path in (repository / "portal" / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found |= {f"{path.name}: {name}" for name in names if name in clients and name != "http"}
    assert found == set()


def test_the_web_ui_asks_the_portal_and_nobody_else_whatever_the_path_says() -> None:
    asked: list[httpx.Request] = []

    def heard(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    add_portal_routes(app, Portal("http://portal:8000", transport=httpx.MockTransport(heard)))
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    for address in ADDRESSES:
        quoted = httpx.QueryParams({"": address}).__str__()[1:]
        for path in (f"/api/v1/{quoted}", f"/files/@{quoted}", f"/api//{quoted}?url={quoted}", "/api/..//x"):
            client.get(path, headers={"X-Forwarded-Host": "127.0.0.1", "X-Original-URL": address.encode()})
    assert len(asked) >= 3 * len(ADDRESSES)
    assert {(each.url.scheme, each.url.host, each.url.port) for each in asked} == {("http", "portal", 8000)}
    assert {each.headers["host"] for each in asked} == {"portal:8000"}
    assert {each.headers["x-forwarded-host"] for each in asked} == {"127.0.0.1:7860"}


# --- Pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def zeros(size: int) -> bytes:
    """So many zeros, packed, without having them."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(MEBIBYTE)) for _ in range(size // MEBIBYTE)), packer.flush()])


def webp(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x00\x00\x00\x00" + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(frames: int) -> bytes:
    """A GIF whose frames are one pixel each."""
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * frames + b";"


def jpeg(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bombs() -> dict[str, bytes]:
    """Small files that say, or unfold to, far more."""
    packed = zeros(600 * MEBIBYTE)
    return {
        "221 million pixels that compress to nothing": png(13_000, 17_000, pixels=packed),
        "four thousand million pixels a side": png(2**31 - 1, 2**31 - 1),
        "no pixels": png(0, 0),
        "a WebP canvas of 2^28 pixels": webp(16_384, 16_384),
        "a JPEG of 65,535 x 65,535": jpeg(65_535, 65_535),
        "a packed text of 600 MiB": png(8, 8, chunk(b"zTXt", b"parameters\0\0" + packed)),
        "a packed international text": png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + packed)),
        "texts that are large together": png(8, 8, *[chunk(b"tEXt", b"a\0" + b"b" * MEBIBYTE)] * 6),
        "a hundred thousand chunks": png(8, 8, *[chunk(b"tEXt", b"a\0b")] * 100_001),
        "a chunk longer than the file": b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffIHDR",
    }


def high_water() -> int:
    """The most memory this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sent(portal: Served, data: bytes) -> dict[str, httpx.Response]:
    """What every route that takes a picture says to it."""
    root, model = portal.person("root"), model_of(portal)
    encoded = base64.b64encode(data).decode()
    return {
        "infotext": root.post("/api/v1/infotext", json={"image": encoded}),
        "png-info": root.post("/sdapi/v1/png-info", json={"image": encoded}),
        "preview": root.put(f"/api/v1/models/{model}/preview", content=data),
        "form": root.post(f"/portal/models/{model}/preview", files={"picture": ("x.png", data)}),
    }


def test_a_picture_that_is_a_bomb_is_refused_before_it_goes_off(portal: Served) -> None:
    found = bombs()
    assert max(map(len, found.values())) < 7 * MEBIBYTE
    sent(portal, png(8, 8))  # whatever is loaded once is loaded
    before, wrong = high_water(), {}
    for name, data in found.items():
        for where, answer in sent(portal, data).items():
            if answer.status_code != 422 and not (where in ("preview", "form") and answer.status_code < 400):
                wrong[f"{name}: {where}"] = (answer.status_code, answer.text[:200])
    assert wrong == {}
    assert high_water() - before < 160 * MEBIBYTE
    said = sent(portal, found["221 million pixels that compress to nothing"])
    assert PICTURE_LIMIT in said["infotext"].json()["error"]["message"]
    assert "40,000,000 at most" in said["preview"].json()["error"]["message"]
    packed = sent(portal, found["a packed text of 600 MiB"])["png-info"].json()["detail"]
    assert "larger than 4 MiB" in packed


def test_a_bomb_is_no_embedding_either(portal: Served) -> None:
    packed = zeros(600 * MEBIBYTE)
    for data in (
        png(13_000, 17_000, pixels=packed),
        png(8, 8, chunk(b"zTXt", b"sd-ti-embedding\0\0" + packed)),
    ):
        query = {"kind": "embedding", "filename": "x.png"}
        answer = portal.person("root").post("/api/v1/models/upload", params=query, content=data)
        assert answer.status_code == 422, answer.text
        assert "x.png" in answer.json()["error"]["message"]
    assert portal.person("root").get("/api/v1/models?kind=embedding").json() == []


def test_pixels_beyond_what_the_header_says_and_thousands_of_frames_are_not_unfolded(portal: Served) -> None:
    sent(portal, png(8, 8))
    before = high_water()
    for data in (png(8, 8, pixels=zeros(600 * MEBIBYTE)), gif(100_000)):
        answers = sent(portal, data)
        assert {answers[each].status_code for each in ("infotext", "png-info", "preview")} <= {200, 422}
    assert high_water() - before < 160 * MEBIBYTE


LIES: dict[str, bytes] = {
    "a drawing with a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a page": b"<!doctype html><script>alert(1)</script>",
    "a PDF": b"%PDF-1.4\n1 0 obj<<>>endobj",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "Photoshop": b"8BPS\0\1" + bytes(40),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "TIFF": b"II*\0\x08\0\0\0\0\0\0\0",
    "an icon": b"\0\0\1\0\1\0" + bytes(20),
    "a program": b"\x7fELF" + bytes(60),
    "an archive": b"PK\3\4" + bytes(60),
    "a PNG's name for a page": b"\x89PNG\r\n\x1a\n<script>alert(1)</script>",
    "a JPEG's first bytes": b"\xff\xd8\xff\xe0" + b"<script>" * 20,
    "a GIF that is a script": b"GIF89a=1;alert(1)//",
}


def test_a_file_is_what_its_bytes_are_whatever_it_is_called(portal: Served) -> None:
    root, model = portal.person("root"), model_of(portal)
    wrong = {}
    for name, data in LIES.items():
        for media_type in ("image/png", "image/svg+xml", "text/html"):
            headers = {"Content-Type": media_type}
            answer = root.put(f"/api/v1/models/{model}/preview", content=data, headers=headers)
            if answer.status_code != 422:
                wrong[f"{name} as {media_type}"] = (answer.status_code, answer.text[:100])
        for where, answer in sent(portal, data).items():
            if answer.status_code != 422:
                wrong[f"{name}: {where}"] = (answer.status_code, answer.text[:100])
    assert wrong == {}


def test_a_preview_brings_nothing_along_and_runs_nothing(portal: Served) -> None:
    root, model = portal.person("root"), model_of(portal)
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "taken at home"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    Image.new("RGB", (64, 64), "red").save(out, "JPEG", exif=exif, comment=b"<script>alert(1)</script>")
    assert b"taken at home" in out.getvalue()
    headers = {"Content-Type": "text/html"}
    assert (
        root.put(f"/api/v1/models/{model}/preview", content=out.getvalue(), headers=headers).status_code
        == 200
    )
    for path in (f"/api/v1/models/{model}/preview", f"/sd_extra_networks/thumb?filename={model}"):
        kept = root.get(path)
        assert b"taken at home" not in kept.content
        assert b"script" not in kept.content
        assert kept.headers["content-type"] == "image/webp"
        assert kept.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in kept.headers["content-security-policy"]
        with Image.open(io.BytesIO(kept.content)) as picture:
            assert (picture.format, len(picture.getexif())) == ("WEBP", 0)
