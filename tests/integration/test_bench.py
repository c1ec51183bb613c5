"""The measurements run, with the least of everything, and say what they promise to say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.worker_process import tiny_checkpoint

pytestmark = [pytest.mark.long]

TINY_COLUMNS = ["--sizes", "128", "64", "--numbers", "1", "2"]


def measured(repository: Path, place: Path, program: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What a program of bench/ prints, and the figures it keeps."""
    kept = place / "figures.json"
    done = subprocess.run(
        [sys.executable, repository / "bench" / program, *arguments, "--json", kept],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(kept.read_text(encoding="utf-8"))


def rows(table: str) -> dict[str, list[str]]:
    """The lines of all tables by their first cell."""
    lines = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| "))
    return {first: others for first, *others in lines}


def test_the_published_table_has_a_line_for_each_maker_and_their_ratio(
    repository: Path, tmp_path: Path
) -> None:
    model = tiny_checkpoint(tmp_path / "tiny.safetensors", 1)
    options = ["--model", str(model), "--steps", "2", "--threads", "1", *TINY_COLUMNS]
    shown, figures = measured(repository, tmp_path, "seed_table.py", *options)
    assert rows(shown)["seconds"] == ["128 px", "64 px", "1 at 128 px", "2 at 128 px"]
    assert (
        set(figures["seconds"]["engine"])
        == set(figures["seconds"]["diffusers"])
        == {"64x1", "128x1", "128x2"}
    )
    assert len(rows(shown)["times as fast as diffusers"]) == 4


def test_the_cost_of_a_step_is_told_for_every_case_asked_for(repository: Path, tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "tiny.safetensors", 1)
    cases = ["Heun", "Euler, AND", "Euler, 8 at once"]
    options = ["--model", str(model), "--steps", "3", "--rounds", "1", "--size", "64", "--only", *cases]
    shown, figures = measured(repository, tmp_path, "step_cost.py", *options)
    assert list(figures) == cases
    assert figures["Heun"]["forwards"] == 5
    for name in cases:
        assert 0.0 < figures[name]["beyond_percent"] < 100.0
        assert rows(shown)[name]


def test_the_speed_of_the_language_is_told_for_every_reader(repository: Path, tmp_path: Path) -> None:
    shown, figures = measured(repository, tmp_path, "language.py", "--rounds", "1", "--no-nasty")
    assert {"schedule.compile", "attention.parse", "chunks.cut", "a whole prompt"} <= set(
        figures["characters_per_s"]
    )
    assert all(speed > 0 for speed in figures["characters_per_s"].values())
    assert rows(shown)["infotext.render"]


def test_a_switch_of_the_checkpoint_is_held_against_modules_built_anew_and_diffusers(
    repository: Path, tmp_path: Path
) -> None:
    families = ["SD1", "SDXL"]
    options = ["--width", "32", "--rounds", "1", "--threads", "1", "--families", *families]
    shown, figures = measured(repository, tmp_path, "switching.py", *options)
    for family in families:
        assert set(figures[family]["seconds"]) == {
            "switch, file in host memory",
            "modules built anew, file in host memory",
            "diffusers from_single_file",
            "switch, file read again",
        }
        assert figures[family]["times_a_switch"]["switch, file in host memory"] == 1
        assert rows(shown)[f"{family}, {figures[family]['megabytes']} MB"]
    assert len(rows(shown)["diffusers from_single_file"]) == 2


def test_the_measurement_on_a_gpu_runs_whole_with_narrow_networks(repository: Path, tmp_path: Path) -> None:
    options = ["--small", "--only", "SDXL", "--concurrency", "1", "2"]
    shown, figures = measured(repository, tmp_path, "gpu.py", *options)
    ours, theirs = figures["SDXL"]["engine"], figures["SDXL"]["diffusers eager"]
    split = {"text", "UNet", "VAE", "beside the networks", "encode (PNG)", "server"}
    assert set(ours["split_s"]) == split
    assert min(ours["split_s"][each] for each in ("text", "UNet", "VAE", "encode (PNG)")) > 0
    assert set(ours["pictures_per_s"]) == set(theirs["pictures_per_s"]) == {"1", "2"}
    assert ours["share_of_peak"] is None, "no card, no share of its peak"
    assert rows(shown)["published: stable-fast, H100 (same)"]


def test_the_load_rate_stands_beside_the_library_as_it_is_and_with_its_bytes_read(
    repository: Path, tmp_path: Path
) -> None:
    shown, figures = measured(repository, tmp_path, "loading.py", "--megabytes", "40", "--rounds", "1")
    assert figures["bytes"] >= 40e6
    assert list(figures["readers"]) == [
        "engine",
        "load_file, nothing read yet",
        "load_file, then copied",
    ]
    assert figures["readers"]["engine"]["engine_times_as_fast"] == 1.0
    assert len(rows(shown)["engine"]) == 4


def test_the_cost_of_networks_is_told_for_changes_and_for_steps(repository: Path, tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "tiny.safetensors", 1)
    options = ["--model", str(model), "--rounds", "1", "--steps", "2", "--size", "64", "--rank", "4"]
    shown, figures = measured(repository, tmp_path, "networks.py", *options)
    assert figures["touched"] > 50, "every linear layer of the transformers"
    assert set(figures["step_ms"]) == {"without", "with"}
    assert rows(shown)["another set in its place"]


@pytest.mark.parametrize("server", [[], ["--postgres"]])
def test_every_list_of_a_full_database_is_measured(
    repository: Path, tmp_path: Path, server: list[str]
) -> None:
    amounts = ["--finished", "60", "--queued", "12", "--audit", "40", "--rounds", "2"]
    shown, figures = measured(repository, tmp_path, "lists.py", *server, *amounts)
    asked = figures["ms"]
    for path in ("/api/v1/jobs", "/api/v1/audit", "/api/v1/users", "/portal/jobs", "/metrics"):
        assert asked[path]["kib"] > 0.1 and f"| {path} |" in shown
    assert all(told["p95"] > 0 for told in asked.values()) and len(asked) > 50
