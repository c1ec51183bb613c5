"""What pyproject.toml declares is what the code imports, and the constraints pin all of it."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import pytest

from tests.architecture.source import PACKAGES, ROOT, imports_of, product_files, shown

# Imported through a distribution that depends on it and is declared: they cannot come apart.
COME_ALONG = {
    "starlette": "fastapi",
    "pydantic_core": "pydantic",
    "anyio": "fastapi",
    "click": "uvicorn",
    "werkzeug": "moto",
}
EXTRAS = {
    "atelier": [],
    "portal": ["portal"],
    "webui": ["webui"],
    "workers": ["worker"],
    "extensions": ["worker", "webui"],
    "rehearsal": ["rehearsal", "portal"],
}
OPTIONAL = {"xformers", "boto3", "botocore"}
# What of atelier draws or reads pictures is for the parts that install Pillow: the portal and the worker.
NEEDS_PILLOW = ("portal", "worker")


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


@pytest.mark.parametrize("package", sorted(EXTRAS))
def test_a_part_imports_only_what_its_extra_declares(package: str, project: dict[str, Any]) -> None:
    declared = {_name(each) for each in project["dependencies"]}
    for extra in EXTRAS[package]:
        declared |= {_name(each) for each in project["optional-dependencies"][extra]}
    providers = packages_distributions()
    undeclared = []
    for path in product_files():
        if shown(path).split("/")[0] != package:
            continue
        for name, line in imports_of(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES or top in OPTIONAL:
                continue
            if package == "atelier" and top == "PIL":
                continue
            names = {each.lower().replace("_", "-") for each in providers.get(top, [top])} | {
                COME_ALONG.get(top, top)
            }
            if not names & declared:
                undeclared.append(f"{shown(path)}:{line} imports {name}")
    assert not undeclared, "\n".join(undeclared)


def test_the_parts_that_use_ateliers_pictures_declare_pillow(project: dict[str, Any]) -> None:
    for extra in NEEDS_PILLOW:
        assert "pillow" in {_name(each) for each in project["optional-dependencies"][extra]}, extra


def test_every_declared_dependency_is_pinned_exactly_once(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [_name(line) for line in lines if line and not line.startswith("#")]
    wanted = {_name(each) for each in project["dependencies"]}
    for extra, requirements in project["optional-dependencies"].items():
        wanted |= {_name(each) for each in requirements} if extra != "cuda" else set()
    assert sorted(pinned) == sorted(set(pinned))
    assert wanted - {"atelier"} <= set(pinned), sorted(wanted - set(pinned))
    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_the_web_ui_and_the_portal_need_no_torch(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    heavy = {"torch", "diffusers", "transformers", "safetensors", "xformers", "boto3", "sagemaker"}
    for extra in ("portal", "webui"):
        assert not heavy & {_name(each) for each in extras[extra]}, extra
    assert "boto3" in {_name(each) for each in extras["aws"]}
    assert "sagemaker" in {_name(each) for each in extras["sagemaker"]}
