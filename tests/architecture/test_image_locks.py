"""The images' lock files say what constraints.txt and pyproject.toml say: nothing more, nothing less."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deployment.images import lock
from tests.architecture.source import ROOT

SHARED = {name: lock.read(lock.LOCKS / f"{name}.txt") for name in lock.FILES}
HEAVY = {"torch", "diffusers", "transformers", "safetensors", "xformers", "triton"}


def pins(name: str) -> dict[str, lock.Pin]:
    return {pin.name: pin for pin in SHARED[name]}


def needs(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed package needs for itself and for the extras it is asked for with."""
    try:
        stated = distribution(requirement.name).requires or []
    except PackageNotFoundError:
        return  # only a machine with a GPU has it; constraints-cuda.txt pins all of those
    for each in map(Requirement, stated):
        extras = ["", *sorted(requirement.extras)]
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
            yield each


def test_every_lock_file_is_known_and_every_known_one_is_there() -> None:
    assert {path.stem for path in lock.LOCKS.glob("*.txt")} == set(lock.FILES)


@pytest.mark.parametrize("name", sorted(lock.FILES))
def test_every_version_is_the_one_the_constraints_pin(name: str) -> None:
    pinned, build = lock.pinned(ROOT / lock.FILES[name].constraints), lock.FILES[name].torch_build
    locked = {each: pin.version for each, pin in pins(name).items()}
    if build:
        assert locked["torch"].endswith(f"+{build}")
        locked["torch"] = locked["torch"].removesuffix(f"+{build}")
    assert locked == {each: pinned.get(each) for each in locked}
    assert len(SHARED[name]) == len(locked) >= 40
    assert list(locked) == sorted(locked)  # as the tool writes them


@pytest.mark.parametrize("name", sorted(lock.FILES))
def test_a_lock_file_holds_all_that_its_extras_need_and_nothing_else(name: str) -> None:
    locked, waiting = pins(name), [Requirement(each) for each in lock.requirements(lock.FILES[name].extras)]
    seen: set[str] = set()
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        own = lock.normalised(requirement.name)
        assert own in locked, f"{requirement} is missing"
        assert requirement.specifier.contains(locked[own].version, prereleases=True), requirement
        seen.add(str(requirement))
        found.add(own)
        waiting.extend(needs(requirement))
    of_the_gpu = set(lock.pinned(ROOT / "constraints-cuda.txt")) - set(lock.pinned(ROOT / "constraints.txt"))
    assert set(locked) - found <= (of_the_gpu if "cuda" in lock.FILES[name].extras else set())


def test_a_package_is_the_same_file_wherever_it_is_locked() -> None:
    seen: dict[tuple[str, str], str] = {}
    for name in lock.FILES:
        for pin in SHARED[name]:
            assert seen.setdefault((pin.name, pin.version), pin.sha256) == pin.sha256, pin.name
    assert len(set(seen.values())) == len(seen)


def test_the_web_ui_and_the_portal_lock_no_network_to_compute() -> None:
    assert not HEAVY & set(pins("webui"))
    assert not HEAVY & set(pins("portal"))
    assert not {"boto3", "sqlalchemy", "python-jose"} & set(pins("webui"))
    assert not {"gradio", "sqlalchemy", "python-jose"} & set(pins("worker-cpu"))
    assert {"torch", "triton", "xformers", "nvidia-cudnn-cu13"} <= set(pins("worker-cuda"))


def test_no_lock_file_names_an_index() -> None:
    for path in lock.LOCKS.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and "index" not in text and "find-links" not in text, path.name


def test_a_line_without_its_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("# said\nsix==1.17.0\n")
    with pytest.raises(ValueError, match=r"bad.txt: 'six==1.17.0' is no name==version"):
        lock.read(tmp_path / "bad.txt")
