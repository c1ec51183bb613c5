"""Picture files: pixels in, with the infotext where the peer and the sites that show pictures look for it;
and the infotext out of files of any origin.
"""

from __future__ import annotations

import base64
import io
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atelier import __version__, exif, pngtext
from atelier.contract import canonical
from atelier.contract.errors import InvalidRequest
from atelier.contract.parts import PictureFormat
from atelier.infotext import novelai

ENGINE_NAME = f"Atelier {__version__}"
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}
"""By file name extension, which is also the format's name."""
MAX_PIXELS = 80_000_000
"""A larger picture is refused unseen."""
_JPEG_SEGMENT = 65_533
"""Bytes an EXIF block may have in a JPEG file."""
_PNG, _WEBP = "PNG", "WEBP"
_PILLOW = ("JPEG", "AVIF", "GIF")
"""Formats of which Pillow reads the header; every other of its readers stays shut."""


class Encoded(NamedTuple):
    """A picture as a file."""

    data: bytes
    media_type: str
    extension: str


@dataclass(frozen=True)
class PictureText:
    """What a file says of itself: its infotext ("" without one), size in pixels, and its other texts."""

    infotext: str
    width: int
    height: int
    items: dict[str, str] = field(default_factory=dict)


def encode(image: Image.Image, format: PictureFormat, infotext: str, recipe_hash: str) -> Encoded:
    """`image` as a file of `format`. PNG: chunk `parameters` is the infotext (tEXt, iTXt where Latin-1 cannot
    say it), chunk `atelier` names the recipe. The others: EXIF UserComment. As in the peer.

    A JPEG file has room for some 32,000 characters, or twice that in ASCII; a longer text stays out of it.
    """
    out = io.BytesIO()
    if format.name == "png":
        image.save(out, _PNG, pnginfo=_chunks(infotext if format.with_infotext else None, recipe_hash))
    else:
        flat = image if image.mode == "RGB" else image.convert("RGB")
        options: dict[str, Any] = {"quality": format.quality}
        if format.name == "webp":
            options["lossless"] = format.lossless
        if format.with_infotext and (comment := _comment(infotext, format.name)):
            options["exif"] = comment
        flat.save(out, {"jpg": "JPEG"}.get(format.name, format.name.upper()), **options)
    return Encoded(out.getvalue(), MEDIA_TYPES[format.name], format.name)


def _chunks(infotext: str | None, recipe_hash: str) -> PngInfo:
    chunks = PngInfo()
    if infotext is not None:
        chunks.add_text("parameters", infotext)
    chunks.add_text("atelier", canonical.dumps({"recipe": recipe_hash, "engine": ENGINE_NAME}))
    return chunks


def _comment(infotext: str, format_name: str) -> bytes:
    """The EXIF block; empty where the format has no room for it."""
    block = exif.block(infotext)
    if format_name != "jpg" or len(block) <= _JPEG_SEGMENT:
        return block
    narrow = exif.block(infotext, ascii_only=True) if infotext.isascii() else block
    return narrow if len(narrow) <= _JPEG_SEGMENT else b""


def from_base64(text: str) -> bytes:
    """The bytes of a file sent as base64, with or without `data:...;base64,` before it. Raises
    InvalidRequest.
    """
    head, comma, body = text.strip().partition(",")
    encoded = body if comma and head.startswith("data:") else text
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise InvalidRequest(
            "Invalid encoded image: it has to be the base64 of a picture file; addresses are not fetched."
        ) from error
    if not data:
        raise InvalidRequest("Invalid encoded image: it is empty.")
    return data


def read(data: bytes) -> PictureText:
    """The texts of a PNG, JPEG, WebP, AVIF or GIF file, without decoding its pixels; those of NovelAI's PNGs
    as the infotext that means the same.

    Raises InvalidRequest for anything else, for damaged files and for those beyond MAX_PIXELS.
    """
    if data.startswith(pngtext.SIGNATURE):
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    return _opened(data)


def _png(data: bytes) -> PictureText:
    told = pngtext.read(data)
    _check_size(told.width, told.height)
    items = dict(told.texts)
    text = items.pop("parameters", "")
    text = exif.user_comment(told.exif) or text
    if items.get("Software") == "NovelAI":
        size = told.width, told.height
        text = novelai.translate(items.get("Description", ""), items.get("Comment", ""), size) or text
    return PictureText(text, told.width, told.height, items)


def _webp(data: bytes) -> PictureText:
    """The chunk EXIF of a RIFF container. Its first chunk has the size, unless the file is cut off."""
    place, text = 12, ""
    width, height = _webp_size(data)
    _check_size(width, height)
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"EXIF":
            text = exif.user_comment(data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    if place > len(data) + 1:
        raise InvalidRequest("This WebP file is cut off. Save or send it again.")
    return PictureText(text, width, height)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header of the lossy, lossless or extended form."""
    kind, header = data[12:16], data[20:30]
    if len(header) < 10:
        raise InvalidRequest("This WebP file is cut off. Save or send it again.")
    if kind == b"VP8X":
        return 1 + int.from_bytes(header[4:7], "little"), 1 + int.from_bytes(header[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", header, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise InvalidRequest("This WebP file has no picture in it.")


def _opened(data: bytes) -> PictureText:
    try:
        with Image.open(io.BytesIO(data), formats=_PILLOW) as image:
            (width, height), told = image.size, image.info
    except Exception as error:  # Pillow's readers raise anything at all for damaged files
        raise InvalidRequest(
            "This is no picture that can be read. PNG, JPEG, WebP, AVIF and GIF files can, if they are whole."
        ) from error
    _check_size(width, height)
    text = exif.user_comment(told["exif"]) if isinstance(told.get("exif"), bytes) else ""
    return PictureText(text or _remark(told.get("comment")), width, height)


def _remark(comment: object) -> str:
    """The comment of a GIF or JPEG file."""
    if isinstance(comment, bytes):
        return comment[: pngtext.MAX_TEXT_BYTES].decode("utf-8", "replace")
    return comment if isinstance(comment, str) else ""


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise InvalidRequest(
            f"This picture has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} in all may be."
        )
