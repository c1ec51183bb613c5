"""The commands a newcomer types are what the documentation says they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.architecture.source import ROOT

TARGETS = ("up", "test", "test-long", "check", "format", "demo", "bench", "clean")


def _plan(target: str) -> str:
    """What make would run for `target`, as if nothing were installed yet."""
    make = shutil.which("make")
    assert make, "make is not installed"
    done = subprocess.run(
        [make, "--dry-run", "--always-make", target],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_of_the_makefile_can_be_planned(target: str) -> None:
    assert _plan(target).strip()


def test_starting_the_studio_installs_with_constraints_and_without_test_tools() -> None:
    plan = _plan("up")
    assert re.search(
        r"pip install -q --no-compile -c constraints(-cuda)?\.txt -e '\.\[studio(,cuda)?\]'", plan
    )
    assert "[dev" not in plan
    assert plan.strip().splitlines()[-1].endswith("/atelier up")


def test_the_tests_find_a_chromium_first_and_leave_the_long_ones_out() -> None:
    plan = _plan("test")
    assert plan.index("tests.browser.chromium") < plan.index("pytest")
    assert '-m "not long"' in plan
    assert re.search(r"pytest -m long", _plan("test-long"))


def test_checking_runs_lint_types_and_contracts() -> None:
    plan = _plan("check")
    assert all(
        tool in plan
        for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "tests/architecture")
    )


def test_continuous_integration_runs_the_three_commands() -> None:
    script = ROOT / ".ci" / "run"
    done = subprocess.run(
        ["bash", "-n", str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert os.access(script, os.X_OK)
    assert "for step in check test test-long" in script.read_text(encoding="utf-8")


def test_every_command_shown_in_the_readme_is_a_target() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "CONTRIBUTING.md").read_text(
        encoding="utf-8"
    )
    shown = set(re.findall(r"\bmake ([a-z-]+)\b", text)) - {"and"}
    assert shown <= set(TARGETS), shown - set(TARGETS)


@pytest.mark.parametrize("target", ["demo", "bench", "test"])
def test_a_target_starts_a_program_that_exists(target: str) -> None:
    plan = _plan(target)
    programs = re.findall(r"bin/python (?:-m ([\w.]+)|(\S+\.py))", plan)
    ours = [name.replace(".", "/") + ".py" if name else file for name, file in programs if name != "pytest"]
    assert ours
    assert not [each for each in ours if not (ROOT / each).is_file()], ours
