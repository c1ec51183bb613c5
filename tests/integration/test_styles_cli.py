"""atelier styles, as the real processes a person starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ATELIER = str(Path(sys.executable).parent / "atelier")
FILE = 'name,prompt,negative_prompt\nwrap,"photo of {prompt},\nbright",dark\nplain,\x1b[2Jsharp,\n'


def styles(data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on `data_dir` with nothing else of the caller's settings."""
    return subprocess.run(
        [ATELIER, "styles", *words],
        env={"PATH": os.environ["PATH"], "ATELIER_DATA_DIR": str(data_dir), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=data_dir,
        check=False,
    )


@pytest.fixture
def file(data_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "styles.csv"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_file_is_imported_listed_and_exported_again(data_dir: Path, file: Path, tmp_path: Path) -> None:
    added = styles(data_dir, "import", str(file))
    assert (added.returncode, added.stdout) == (0, "Added 2, replaced 0, refused 0.\n"), added.stderr
    shown = styles(data_dir, "list")
    assert shown.stdout == "wrap\tphoto of {prompt}, bright\tdark\nplain\t [2Jsharp\t\n"
    out = tmp_path / "out.csv"
    out.write_text("what was there")
    written = styles(data_dir, "export", str(out))
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "out.csv.bak").read_text() == "what was there"
    assert out.read_bytes().startswith(b"\xef\xbb\xbfname,prompt,negative_prompt\r\nwrap,")
    again = styles(data_dir, "import", str(out))
    assert (again.returncode, again.stdout) == (0, "Added 0, replaced 2, refused 0.\n"), again.stderr


def test_a_row_that_cannot_be_kept_is_told_with_its_line_and_the_others_are_kept(
    data_dir: Path, file: Path
) -> None:
    file.write_text(FILE + ",nameless,\n", encoding="utf-8")
    done = styles(data_dir, "import", str(file))
    assert (done.returncode, done.stdout) == (1, "Added 2, replaced 0, refused 1.\n")
    assert f"{file}:5: " in done.stderr
    assert "name" in done.stderr


@pytest.mark.parametrize("content", [None, "no styles\n", "name,prompt\n" + "x" * (10 * 2**20)])
def test_what_is_no_file_of_styles_is_refused_with_a_sentence(
    data_dir: Path, file: Path, content: str | None
) -> None:
    file.unlink() if content is None else file.write_text(content)
    refused = styles(data_dir, "import", str(file))
    assert refused.returncode == 1
    assert refused.stderr.startswith("atelier: ")
    assert "Traceback" not in refused.stderr
    assert styles(data_dir, "list").stdout == ""
