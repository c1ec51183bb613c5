"""Who may import whom, and that importing does nothing but import."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, functions_of, imports_of, module_of, product_files, shown, tree_of

HEAVY = ("torch", "diffusers", "transformers", "safetensors", "xformers")
# What atelier may import beyond the standard library, and where.
GROUND: dict[str, tuple[str, ...] | None] = {
    "pydantic": None,
    "pydantic_core": None,
    "pluggy": ("atelier.extension",),
    "httpx": ("atelier.client",),
    "boto3": ("atelier.storage.s3", "atelier.storage.aws_secret"),
    "botocore": ("atelier.storage.s3", "atelier.storage.aws_secret"),
    "PIL": ("atelier.picturefile", "atelier.grid"),
}

# Runs in a process of its own: imports third parties first (what they do while importing is theirs), then
# every
# module of ours with an empty environment, and fails at the first socket or read of a variable.
IMPORT_ALL = """
import importlib, json, os, sys, warnings
package, third_parties, modules = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
warnings.simplefilter("ignore")
for name in third_parties:
    importlib.import_module(name)
os.environ.clear()
def refuse(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.fork", "sqlite3.connect"):
        raise AssertionError(f"{event} while importing")
sys.addaudithook(refuse)
warnings.simplefilter("error")
for name in modules:
    try:
        importlib.import_module(name)
    except BaseException as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
print(len(modules))
"""
THIRD_PARTIES = {
    "atelier": ["pydantic", "pluggy", "httpx", "PIL.Image", "boto3", "boto3.s3.transfer"],
    "portal": [
        "fastapi",
        "sqlalchemy.orm",
        "alembic.command",
        "jose.jwt",
        "pydantic_settings",
        "jinja2",
        "uvicorn",
        "httpx",
    ],
    "webui": ["gradio", "uvicorn", "httpx"],
    "workers": ["torch", "diffusers.models", "transformers", "fastapi", "uvicorn", "numpy", "PIL.Image"],
    "extensions": [],
    "rehearsal": ["moto.server", "moto.backends", "httpx", "PIL.Image", "boto3"],
}


@pytest.mark.parametrize("package", sorted(THIRD_PARTIES))
def test_importing_a_module_opens_no_socket_and_needs_no_environment(package: str, tmp_path: Path) -> None:
    modules = [
        module_of(path)
        for path in product_files()
        if path.relative_to(ROOT).parts[0] == package and "migrations" not in path.parts
    ]
    arguments = [package, json.dumps(THIRD_PARTIES[package]), json.dumps(modules)]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *arguments],
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "GRADIO_ANALYTICS_ENABLED": "False",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == len(modules) > 0
    assert not [each for each in tmp_path.iterdir() if each.name not in (".cache", ".config")]


def test_no_module_reads_the_environment_while_it_is_imported() -> None:
    reading = []
    for path in product_files():
        inside = {id(node) for function in functions_of(path) for node in ast.walk(function)}
        for node in ast.walk(tree_of(path)):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text in ("os.environ", "os.getenv") and id(node) not in inside:
                reading.append(f"{shown(path)}:{node.lineno}")
    assert not reading, reading


def _may_hold_weights(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return parts[0] == "workers" or (parts[0] == "extensions" and parts[-1] == "worker.py")


def test_torch_is_imported_nowhere_outside_workers() -> None:
    found = [
        f"{shown(path)}:{line} imports {name}"
        for path in product_files()
        if not _may_hold_weights(path)
        for name, line in imports_of(path)
        if name.split(".")[0] in HEAVY
    ]
    assert not found, "\n".join(found)


def _may_know_aws(module: str) -> bool:
    return module in ("atelier.storage.s3", "atelier.storage.aws_secret") or module.startswith(
        ("portal.adapters.aws", "rehearsal")
    )


def test_the_library_of_aws_is_imported_by_adapters_alone() -> None:
    found = [
        f"{shown(path)}:{line} imports {name}"
        for path in product_files()
        for name, line in imports_of(path)
        if name.split(".")[0] in ("boto3", "botocore", "s3transfer") and not _may_know_aws(module_of(path))
    ]
    assert not found, "\n".join(found)


def test_atelier_needs_the_standard_library_and_pydantic_alone() -> None:
    found = []
    for path in product_files():
        module = module_of(path)
        if module.split(".")[0] != "atelier":
            continue
        for name, line in imports_of(path):
            top = name.split(".")[0]
            if (
                top in sys.stdlib_module_names
                or top == "atelier"
                or (top in GROUND and (GROUND[top] is None or module in GROUND[top]))
            ):
                continue
            found.append(f"{shown(path)}:{line} imports {name}")
    assert not found, "\n".join(found)


def test_the_token_library_is_imported_in_one_place() -> None:
    importing = {
        shown(path)
        for path in product_files()
        for name, _ in imports_of(path)
        if name.split(".")[0] == "jose"
    }
    assert len(importing) == 1, importing
    lines = (ROOT / importing.pop()).read_text(encoding="utf-8").count("\n")
    assert lines <= 100


def test_the_import_contracts_hold(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("lint-imports")),
            "--no-cache",
            "--config",
            str(ROOT / "pyproject.toml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "0 broken" in done.stdout
