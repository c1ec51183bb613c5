"""The file a worker stores is the one the part asks for: format, text, key and all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atelier import picturefile
from atelier.contract.parts import PictureFormat
from tests.contract.test_worker_jobs import Bench
from tests.contract.worker_doubles import ScriptedEngine, a_body, a_part, a_stamp


@pytest.mark.parametrize(
    ("name", "pillow"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF")]
)
def test_a_picture_is_stored_in_the_format_of_its_part(tmp_path: Path, name: Any, pillow: str) -> None:
    bench = Bench(tmp_path, ScriptedEngine(at_once=True))
    bench.ask(a_body(a_part(prompt="ein Kreis, 円", format=PictureFormat(name=name)), a_stamp()))
    picture = bench.result().pictures[0]
    data = bench.store.get(picture.key)
    assert picture.key.endswith(f"/0.{name}")
    assert Image.open(io.BytesIO(data)).format == pillow
    assert picturefile.read(data).infotext == picture.infotext
    assert picture.size == len(data)


def test_a_part_without_infotext_makes_files_without_and_a_result_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ScriptedEngine(at_once=True))
    bench.ask(a_body(a_part(prompt="a circle", format=PictureFormat(with_infotext=False)), a_stamp()))
    picture = bench.result().pictures[0]
    assert picturefile.read(bench.store.get(picture.key)).infotext == ""
    assert picture.infotext.startswith("a circle\n")
