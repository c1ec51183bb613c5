"""Weights that an image brings along: named by their bytes, and only what a worker reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from workers.runtime import baking


@pytest.fixture
def given(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    (folder / "base").mkdir(parents=True)
    save_file({"w": numpy.zeros(3, numpy.float32)}, folder / "base" / "one.safetensors")
    (folder / "base" / "one.yaml").write_text("model: {}\n")
    (folder / "README.md").write_text("Put weights here.\n")
    return folder


def test_every_file_lies_under_the_hash_of_its_bytes(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (given / "base").iterdir()}
    assert baking.main([str(given), str(tmp_path / "baked")]) == 0
    assert {path.name for path in (tmp_path / "baked").iterdir()} == set(hashes.values())
    for path in (tmp_path / "baked").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{hashes[name]} base/{name}" for name in ("one.safetensors", "one.yaml")]


def test_a_folder_without_weights_bakes_nothing(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    assert baking.bake(tmp_path / "given", tmp_path / "baked") == []
    assert list((tmp_path / "baked").iterdir()) == []


def test_a_pickle_and_a_damaged_file_are_refused_and_nothing_is_moved(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (given / "old.ckpt").write_bytes(b"pickled")
    assert baking.main([str(given), str(tmp_path / "baked")]) == 1
    assert "old.ckpt cannot be baked in: only .safetensors files" in capsys.readouterr().err
    (given / "old.ckpt").rename(given / "old.safetensors")
    assert baking.main([str(given), str(tmp_path / "baked")]) == 1
    assert "old.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "baked").exists()
    assert (given / "base" / "one.safetensors").is_file()
