"""What may stand in the tree at all."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

# Assembled, so that this file does not hold what it looks for.
PRIVATE_PLACES = re.compile(
    "/" + r"work/(main|shared|\.library)|/tmp/" + r"(spec|house|demo)|/" + r"root/\.|/" + "home/[a-z]+/"
)
KEYS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}\b")
LARGEST = 41 * 2**20


def kept_files() -> list[Path]:
    """What a clone would hold: tracked files and those git would not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def _texts() -> list[tuple[str, str]]:
    texts = []
    for path in kept_files():
        data = path.read_bytes()
        if b"\0" not in data[:8192] and len(data) < 2**20:
            texts.append((path.relative_to(ROOT).as_posix(), data.decode("utf-8", errors="replace")))
    return texts


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    texts = _texts()
    found = [f"{name}: {match.group()}" for name, text in texts if (match := PRIVATE_PLACES.search(text))]
    assert len(texts) > 50
    assert not found, found


def test_no_file_holds_a_key() -> None:
    found = [name for name, text in _texts() if KEYS.search(text)]
    assert not found, found


def test_no_file_is_larger_than_the_demo_checkpoint_may_be() -> None:
    large = [f"{path}: {path.stat().st_size}" for path in kept_files() if path.stat().st_size > LARGEST]
    assert not large, large


def test_no_environment_data_or_cache_is_kept() -> None:
    kept = {path.relative_to(ROOT).parts[0] for path in kept_files()}
    assert not kept & {".venv", "data", "build", "dist", "atelier.egg-info"}
    assert not [path for path in kept_files() if path.suffix in (".pyc", ".db", ".ckpt", ".pt")]


def test_the_migrations_follow_each_other_in_one_line() -> None:
    texts = [path.read_text() for path in (ROOT / "portal/db/migrations/versions").glob("[0-9]*.py")]
    own, before = (
        sorted(
            found[1] for text in texts if (found := re.search(rf'^{word} = ["\'](\w+)', text, re.MULTILINE))
        )
        for word in ("revision", "down_revision")
    )
    assert len(own) == len(texts)
    assert before == own[:-1], "two migrations follow the same one, or one follows none"
