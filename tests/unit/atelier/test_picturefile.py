"""Picture files: the infotext goes in where the peer looks for it, and comes out of files of every origin."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atelier import exif, picturefile, pngtext
from atelier.contract.errors import InvalidRequest
from atelier.contract.parts import PictureFormat

TEXT = "a red circle, 赤い円 😀\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 1, Size: 64x64"
FORMATS = ("png", "jpg", "webp", "avif")


def picture(side: int = 64) -> Image.Image:
    """A picture of soft colours, as lossy formats keep it well."""
    bands = [Image.linear_gradient("L").resize((side, side)) for _ in range(2)]
    return Image.merge("RGB", (bands[0], bands[1].rotate(90), Image.new("L", (side, side), 128)))


def encoded(name: str, text: str = TEXT, **more: Any) -> picturefile.Encoded:
    return picturefile.encode(picture(), PictureFormat(name=name, **more), text, "f" * 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_the_infotext_comes_back_from_every_format(name: str) -> None:
    data, media_type, extension = encoded(name)
    told = picturefile.read(data)
    assert (told.infotext, told.width, told.height) == (TEXT, 64, 64)
    assert (media_type, extension) == (picturefile.MEDIA_TYPES[name], name)
    assert Image.open(io.BytesIO(data)).get_format_mimetype() == media_type


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_text_comes_back_from_png_and_jpeg(text: str) -> None:
    text += ", Steps: 20, Sampler: Euler"
    assert picturefile.read(encoded("png", text).data).infotext == text
    assert picturefile.read(encoded("jpg", text).data).infotext == text


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_without_infotext_says_nothing_of_how_it_was_made(name: str) -> None:
    data = encoded(name, with_infotext=False).data
    assert picturefile.read(data).infotext == ""
    assert b"Steps" not in data
    assert "Steps".encode("utf-16-be") not in data


def test_a_png_has_its_text_as_the_peer_writes_it_and_names_its_recipe() -> None:
    assert b"tEXtparameters\0caf\xe9" in encoded("png", "café").data
    data = encoded("png").data
    assert b"iTXtparameters\0\0\0\0\0a red circle" in data
    assert picturefile.read(data).items == {
        "atelier": json.dumps(
            {"engine": picturefile.ENGINE_NAME, "recipe": "f" * 64}, separators=(",", ":"), sort_keys=True
        )
    }


@pytest.mark.parametrize("name", ["jpg", "webp", "avif"])
def test_other_formats_have_it_as_the_peer_writes_it(name: str) -> None:
    assert b"UNICODE\0" + TEXT.encode("utf-16-be") in encoded(name).data


def test_what_pillow_reads_of_the_exif_block_is_what_was_written() -> None:
    read = Image.Exif()
    read.load(exif.block(TEXT))
    assert read.endian == ">"
    assert read.get_ifd(0x8769)[0x9286] == b"UNICODE\0" + TEXT.encode("utf-16-be")


def test_quality_and_losslessness_are_what_was_asked_for() -> None:
    sizes = [len(encoded("jpg", quality=quality).data) for quality in (10, 80, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    lossless = Image.open(io.BytesIO(encoded("webp", lossless=True).data)).convert("RGB")
    assert lossless.tobytes() == picture().tobytes()
    assert Image.open(io.BytesIO(encoded("webp").data)).convert("RGB").tobytes() != picture().tobytes()


def test_a_jpeg_is_what_the_peer_makes_of_the_same_pixels() -> None:
    plain = io.BytesIO()
    picture().save(plain, "JPEG", quality=80)
    ours = Image.open(io.BytesIO(encoded("jpg").data)).convert("RGB").tobytes()
    assert ours == Image.open(plain).convert("RGB").tobytes()


def test_a_text_too_long_for_a_jpeg_stays_out_and_the_picture_is_made() -> None:
    fits = "x" * 60_000
    assert picturefile.read(encoded("jpg", fits).data).infotext == fits
    assert picturefile.read(encoded("jpg", "x" * 70_000).data).infotext == ""
    assert picturefile.read(encoded("jpg", "é" * 40_000).data).infotext == ""
    assert picturefile.read(encoded("webp", "é" * 40_000).data).infotext == "é" * 40_000


def tiff(order: str, comment: bytes) -> bytes:
    """An EXIF block of either byte order with any comment, the pointer to it after another entry."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    first = struct.pack(order + "IHHHIIHHIII", 8, 2, 0x0112, 3, 1, 0, 0x8769, 4, 1, 38, 0)
    second = struct.pack(order + "HHHIII", 1, 0x9286, 7, len(comment), 56, 0)
    return b"Exif\0\0" + mark + first + second + comment


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0\xff\xfe" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16-be") + b"\0\0",
        b"ASCII\0\0\0" + TEXT.encode(),
        b"\0" * 8 + TEXT.encode(),
        TEXT.encode(),
    ],
)
def test_comments_of_other_programs_are_read_in_every_encoding(order: str, comment: bytes) -> None:
    assert exif.user_comment(tiff(order, comment)) == TEXT
    jpeg = io.BytesIO()
    picture().save(jpeg, "JPEG", exif=tiff(order, comment))
    assert picturefile.read(jpeg.getvalue()).infotext == TEXT


def test_a_japanese_comment_is_read() -> None:
    assert exif.user_comment(tiff(">", b"JIS\0\0\0\0\0" + "赤い円, Steps: 2".encode("shift_jis"))) == (
        "赤い円, Steps: 2"
    )


@given(st.binary(max_size=200), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_no_exif_block_fails(data: bytes, head: bytes) -> None:
    assert isinstance(exif.user_comment(head + data), str)
    assert isinstance(exif.user_comment(exif.block("x")[: len(data)] + data), str)


def test_comments_of_gif_and_jpeg_files_are_read() -> None:
    for name in ("GIF", "JPEG"):
        out = io.BytesIO()
        picture().save(out, name, comment=b"x\nSteps: 1, Sampler: Euler, Seed: 1")
        assert picturefile.read(out.getvalue()).infotext == "x\nSteps: 1, Sampler: Euler, Seed: 1"


def png(**texts: str) -> bytes:
    chunks, out = PngInfo(), io.BytesIO()
    for key, value in texts.items():
        chunks.add_text(key, value)
    picture().save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def test_the_other_texts_of_a_png_are_its_items() -> None:
    told = picturefile.read(png(parameters="x", Title="mine", workflow="{}"))
    assert (told.infotext, told.items) == ("x", {"Title": "mine", "workflow": "{}"})


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG file with a chunk after its pixels."""
    whole = png()
    return whole[:-12] + chunk(kind, body) + whole[-12:]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"parameters\0caf\xe9"),
        (b"zTXt", b"parameters\0\0" + zlib.compress(b"caf\xe9")),
        (b"iTXt", b"parameters\0\0\0en\0p\0" + "café".encode()),
        (b"iTXt", b"parameters\0\1\0en\0p\0" + zlib.compress("café".encode())),
        (b"eXIf", exif.block("café")[6:]),
    ],
)
def test_texts_behind_the_pixels_are_read_in_every_form(kind: bytes, body: bytes) -> None:
    assert picturefile.read(with_chunk(kind, body)).infotext == "café"


def test_a_picture_of_novelais_gets_the_infotext_that_means_the_same() -> None:
    comment = json.dumps({"steps": 28, "sampler": "k_euler", "seed": 3, "scale": 11, "uc": "bad"})
    told = picturefile.read(png(Software="NovelAI", Description="{girl}", Comment=comment))
    assert told.infotext == (
        "(girl:1.05)\nNegative prompt: bad\n"
        "Steps: 28, Sampler: Euler, CFG scale: 11, Seed: 3, Size: 64x64, Clip skip: 2, ENSD: 31337"
    )
    assert told.items["Software"] == "NovelAI"
    assert picturefile.read(png(Software="NovelAI", Comment="{")).infotext == ""


BOMB = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
PACKED = zlib.compress(b"x" * (pngtext.MAX_TEXT_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"no picture at all", "no picture"),
        (lambda: b"", "no picture"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (lambda: pngtext.SIGNATURE, "cut off"),
        (lambda: png()[:-20], "cut off"),
        (lambda: pngtext.SIGNATURE + chunk(b"IEND", b""), "no size"),
        (lambda: pngtext.SIGNATURE + BOMB, "pixels"),
        (lambda: with_chunk(b"zTXt", b"parameters\0\0" + PACKED), "larger than"),
        (lambda: with_chunk(b"iTXt", b"a\0\1\0\0\0" + PACKED), "larger than"),
        (lambda: with_chunk(b"zTXt", b"parameters\0\0nonsense"), "damaged"),
        (lambda: pngtext.SIGNATURE + chunk(b"gAMA", b"") * 100_001, "chunks"),
        (lambda: encoded("jpg").data[:3], "no picture"),
        (lambda: encoded("avif").data[:40], "no picture"),
        (lambda: encoded("webp").data[:-9], "cut off"),
        (lambda: encoded("webp").data[:20], "cut off"),
        (lambda: b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6, "pixels"),
        (lambda: b"RIFF\0\0\0\0WEBPJUNK\x0a\0\0\0" + b"\0" * 10, "no picture"),
        (lambda: b"GIF89a" + b"\xff\xff" * 2 + b"\0" * 9, "no picture|pixels"),
    ],
)
def test_what_is_no_whole_picture_is_refused_in_a_sentence(make: Callable[[], bytes], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        picturefile.read(make())


@given(st.binary(max_size=120), st.sampled_from(FORMATS), st.floats(0, 1))
def test_damaged_files_are_read_or_refused(damage: bytes, name: str, place: float) -> None:
    whole = WHOLE[name]
    start = int(place * len(whole))
    try:
        told = picturefile.read(whole[:start] + damage + whole[start + len(damage) :])
    except InvalidRequest as refused:
        assert refused.message
    else:
        assert told.width * told.height <= picturefile.MAX_PIXELS


WHOLE = {name: encoded(name).data for name in FORMATS}


@pytest.mark.parametrize("head", ["", "data:image/png;base64,", "  data:image/webp;base64,"])
def test_files_come_as_base64_with_and_without_a_data_address(head: str) -> None:
    text = base64.encodebytes(b"some bytes of a file").decode()
    assert picturefile.from_base64(head + text) == b"some bytes of a file"


@pytest.mark.parametrize("text", ["", "  ", "http://127.0.0.1:1/x.png", "data:image/png;base64,", "é", "a"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid encoded image"):
        picturefile.from_base64(text)
